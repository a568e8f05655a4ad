"""Acting: the agent, the controller, the choice of actions."""
