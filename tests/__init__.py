"""The tests: unit, contract, integration, faults; `tests.stack` starts what they run on."""
