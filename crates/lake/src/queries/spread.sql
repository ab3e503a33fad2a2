WITH asked AS (
  SELECT prompt, account, count(*) AS exchanges
  FROM exchanges
  WHERE prompt IS NOT NULL AND "at" >= $since AND "at" < $until
  GROUP BY prompt, account
),
prompts AS (
  SELECT prompt, count(*) AS accounts, sum(exchanges) AS exchanges
  FROM asked
  GROUP BY prompt
)
SELECT accounts, count(*) AS prompts, sum(exchanges) AS exchanges
FROM prompts
GROUP BY accounts
ORDER BY accounts
