"""How often klimb's intervals hold the truth, and how often its alarms go off when nothing changed."""
