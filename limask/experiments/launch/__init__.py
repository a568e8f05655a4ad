"""Starting the runs of a campaign, here or elsewhere, and watching them."""
