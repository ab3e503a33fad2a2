SELECT account, CAST(date_part('hour', "at") AS BIGINT) AS hour, count(*) AS exchanges
FROM exchanges
WHERE "at" >= $since AND "at" < $until AND ($account = '' OR account = $account)
GROUP BY account, CAST(date_part('hour', "at") AS BIGINT)
ORDER BY account, hour
