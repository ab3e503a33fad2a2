SELECT
  CAST(opened AS DATE) AS day,
  count(*) AS accounts,
  count(payment) AS with_payment,
  count(DISTINCT payment) AS payments
FROM accounts
WHERE opened >= $since AND opened < $until
GROUP BY CAST(opened AS DATE)
ORDER BY day
