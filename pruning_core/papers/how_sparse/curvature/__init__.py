"""Second derivatives of the loss: products with the Hessian, its spectrum by Lanczos, its trace and its null rows."""
