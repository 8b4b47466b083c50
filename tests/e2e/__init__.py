"""Real clients, an emulator that verifies signatures behind real TLS, and sigward as a process of its own."""
