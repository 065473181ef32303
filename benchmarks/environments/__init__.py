"""An environment that is written as TRL's documentation asks for it, and runs in TRL's trainer and in klimb."""
