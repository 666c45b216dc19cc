"""What desks ask for: tail risk, stresses, what-ifs and hedges of one book, outside the live loop."""
