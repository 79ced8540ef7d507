// The few special functions that the bounds need, in double precision and with no state of their own (std::lgamma
// writes a global). Pure.
#pragma once

namespace inferneo {

// ln Gamma(x), x > 0. Stirling's series (Abramowitz and Stegun 6.1.40) after shifting x above 10.
double log_gamma(double x);
double log_beta(double a, double b);  // a, b > 0

// P(Z <= z) of a standard normal Z, and its inverse, p in (0, 1): Abramowitz and Stegun 26.2.23, then Newton's method.
double normal_probability(double z);
double normal_quantile(double p);

}  // namespace inferneo
