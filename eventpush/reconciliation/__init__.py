"""Reconcile accepted events with stored rows: `eventpush account`."""
