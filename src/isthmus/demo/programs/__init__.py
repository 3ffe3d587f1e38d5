"""What the demonstration's tasks run at the sites: plain Python without any package, sent along with each task."""
