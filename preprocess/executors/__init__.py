"""Who works: processes of this machine, or actors of a Ray cluster. They run `step, clip -> outcome` and decide nothing."""
