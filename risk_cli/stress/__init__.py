"""`risk stress` and `risk es`: a desk's files in, losses under scenarios out."""
