WITH asked AS (
  SELECT template, account, prompt, count(*) AS exchanges, min("at") AS first, max("at") AS last
  FROM exchanges
  WHERE template IS NOT NULL AND "at" >= $since AND "at" < $until
  GROUP BY template, account, prompt
),
by_account AS (
  SELECT template, account, sum(exchanges) AS exchanges, min(first) AS first, max(last) AS last
  FROM asked
  GROUP BY template, account
),
by_prompt AS (
  SELECT template, prompt
  FROM asked
  WHERE prompt IS NOT NULL
  GROUP BY template, prompt
),
prompts AS (
  SELECT template, count(*) AS prompts FROM by_prompt GROUP BY template
),
accounts AS (
  SELECT template, count(*) AS accounts, sum(exchanges) AS exchanges, min(first) AS first, max(last) AS last
  FROM by_account
  GROUP BY template
)
SELECT
  lpad(to_hex(accounts.template), 16, '0') AS template,
  accounts.accounts,
  accounts.exchanges,
  coalesce(prompts.prompts, 0) AS prompts,
  accounts.first,
  accounts.last
FROM accounts
LEFT JOIN prompts ON prompts.template = accounts.template
WHERE accounts.accounts >= $accounts
ORDER BY accounts.accounts DESC, accounts.exchanges DESC, 1
