"""Local methods: what one user computes in a round. `local.optimizer` names one of the files."""
