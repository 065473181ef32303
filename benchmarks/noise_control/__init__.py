"""The noise control: trained on rewards that mean nothing, a policy must not go anywhere."""
