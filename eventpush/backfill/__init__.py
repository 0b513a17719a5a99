"""Load files of events through the ingress, as a sender would."""
