"""`swarmsgd train`: a task of the package, trained by real processes."""
