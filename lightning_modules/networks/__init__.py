"""What is trained and what it is built on: encode, predict, decode."""
