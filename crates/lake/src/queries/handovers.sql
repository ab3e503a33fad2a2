-- Moments are cut into slots as long as the time that is looked at, so that whatever follows a refusal in time is in its slot or
-- in the next one, and the join is one of equal slots. Logs of other systems do not say why a request was refused: theirs count.
WITH stops AS (
  SELECT account, CAST("at" AS BIGINT) AS ms
  FROM refusals
  WHERE "at" >= $since AND "at" < $until
    AND (code IS NULL OR code IN
      ('rate_limit_exceeded', 'concurrency_limit_exceeded', 'account_budget_exceeded', 'key_budget_exceeded'))
),
slots AS (
  SELECT account, ms, ms / (CAST($within AS BIGINT) * 1000 + 1) AS slot FROM stops
  UNION ALL
  SELECT account, ms, ms / (CAST($within AS BIGINT) * 1000 + 1) + 1 AS slot FROM stops
),
paced AS (
  SELECT
    account,
    CAST("at" AS BIGINT) AS ms,
    lag(CAST("at" AS BIGINT)) OVER (PARTITION BY account ORDER BY "at", "source", "index") AS before
  FROM exchanges
  WHERE "at" >= $since AND "at" < $until
),
begins AS (
  SELECT account, ms, ms / (CAST($within AS BIGINT) * 1000 + 1) AS slot
  FROM paced
  WHERE before IS NULL OR ms - before >= CAST($idle AS BIGINT) * 1000
)
SELECT
  slots.account AS stopped,
  begins.account AS began,
  count(DISTINCT begins.ms) AS times,
  CAST(min(begins.ms) AS TIMESTAMP(3)) AS first,
  CAST(max(begins.ms) AS TIMESTAMP(3)) AS last
FROM slots
JOIN begins ON begins.slot = slots.slot
WHERE begins.account <> slots.account
  AND begins.ms >= slots.ms
  AND begins.ms <= slots.ms + CAST($within AS BIGINT) * 1000
GROUP BY slots.account, begins.account
HAVING count(DISTINCT begins.ms) >= $times
ORDER BY times DESC, stopped, began
