WITH asked AS (
  SELECT prompt, account, count(*) AS exchanges, min("at") AS first, max("at") AS last
  FROM exchanges
  WHERE prompt IS NOT NULL AND "at" >= $since AND "at" < $until
  GROUP BY prompt, account
)
SELECT
  lpad(to_hex(prompt), 16, '0') AS prompt,
  count(*) AS accounts,
  sum(exchanges) AS exchanges,
  min(first) AS first,
  max(last) AS last
FROM asked
GROUP BY prompt
HAVING count(*) >= $accounts
ORDER BY accounts DESC, exchanges DESC, 1
