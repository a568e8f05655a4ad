"""A campaign: its plan, its folder, what its runs leave behind."""
