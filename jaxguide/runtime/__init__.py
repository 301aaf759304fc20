"""What every command needs and no method does: flags, hosts, exits, progress."""
