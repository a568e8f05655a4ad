"""Networks of which agents are made."""
