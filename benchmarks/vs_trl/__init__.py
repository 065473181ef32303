"""Steps of klimb beside steps of TRL's GRPOTrainer."""
