"""Where a step's samples come from: fresh rollouts, replay, logs, feedback, and how they are mixed."""
