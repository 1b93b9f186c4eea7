"""Re-rankers that compare a query with one image at a time (Suma et al.): ELViS and AMES."""
