"""How sure a prediction is: several predictions of the same image, and how far they lie apart."""
