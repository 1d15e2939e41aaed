"""What a consumer and its workers say to each other."""
