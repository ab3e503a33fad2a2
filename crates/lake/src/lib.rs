//! Questions in SQL over sealed exchanges.
