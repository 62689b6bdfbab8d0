"""The privacy core: sampling, clipping, exact sums, noise, accounting and the ledger."""
