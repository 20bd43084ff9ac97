"""Gram matrices, normal equations, and their solution.

bias_equations.py: the biases of an input group, once its weights are solved
cholesky_solver.py: a system solved by Cholesky factorisation, with a ridge or without
cholesky.py: factorisation, substitution, refinement and a condition estimate
cubic_product.py: M MᵀM by the smaller Gram matrix
eigen.py: the eigendecomposition of a symmetric matrix in its own memory
factorisation.py: the fallback sequence: Cholesky, refinement in float64, a ridge
finite.py: whether a tensor holds a NaN or an infinity
gram.py: XᵀX of one candidate's tokens, summed batch by batch
iterated_tikhonov.py: the solution of a singular system, which keeps the mean where no token goes
linear_system.py: what a solver is given, and what is asked of one
norm_equations.py: the weight and the bias of a norm, channel by channel
normal_equations.py: the sums of an input group over all candidates
kth_largest.py: the k-th largest of more values than are in memory
packed_symmetric.py: a symmetric matrix in one triangle, so that two share a square
row_sketch.py: random combinations of a matrix's rows, from which norms of products are estimated
regression_flops.py: what a regression multiplies
regression_memory.py: the bytes that these take, from shapes
solve_report.py: the report of a solve
spectral_filters.py: how much of each eigenvector a solution takes
spectral_solver.py: a system solved along those eigenvectors that a filter keeps
split_products.py: products to nearly float64's accuracy by units for bfloat16
teacher.py: what a teacher adds to the right-hand sides
"""
