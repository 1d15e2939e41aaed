"""What the machine gives: who owns a process, shared memory, orphans."""
