"""Learning: the learner, its losses and targets, the signals it gives to maskers."""
