"""Human-written, sparse and zero rewards, as source text that goes through the same gate as a designer's."""
