-- Handover's fence for PostgreSQL 12 and newer: the token of the scheduler lease, checked where the effects are written.
--
-- Clocks, pauses and networks cannot break it: what commits under a token commits before the next token is installed, or
-- not at all (SAFETY.md I6, I7). Apply it once, as the role that owns your schema, and again at any time: it changes
-- nothing that stands. `handover-agent lease guard` prints it.
--
--   new holder, before its first unit       SELECT handover.fence_install('billing', 562949953421360, 'instance');
--   every scheduler transaction, first      BEGIN; SELECT handover.fence_check('billing', 562949953421360); ... COMMIT;
--   a service that cannot change its SQL    SELECT handover.fence_protect('invoices', 'billing');   -- once per table
--                                           SET handover.token = '562949953421360';                 -- once per session
--   the scheduler's role, once              SELECT handover.fence_role('billing_scheduler', interval '2 seconds');
--
-- A refusal has SQLSTATE HF001 ("FENCED"): roll back, stop scheduling under this token for good, ask for a fresh record.
-- SQLSTATE 40001 (REPEATABLE READ and SERIALIZABLE) means the same here: do not retry with the same token.

CREATE SCHEMA IF NOT EXISTS handover;

CREATE TABLE IF NOT EXISTS handover.scheduler_fence (
    service      text PRIMARY KEY,
    token        bigint NOT NULL CHECK (token >= 0),
    holder       text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Makes the token the installed one. It needs the row for itself, so it returns only after every transaction that passed
-- the check under an older token has ended; afterwards none can pass. A repeat by the same holder changes nothing.
CREATE OR REPLACE FUNCTION handover.fence_install(p_service text, p_token bigint, p_holder text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored handover.scheduler_fence;
BEGIN
    INSERT INTO handover.scheduler_fence (service, token, holder) VALUES (p_service, 0, '') ON CONFLICT DO NOTHING;
    UPDATE handover.scheduler_fence SET token = p_token, holder = p_holder, installed_at = clock_timestamp()
        WHERE service = p_service AND token < p_token;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO stored FROM handover.scheduler_fence WHERE service = p_service;
    IF stored.token <> p_token OR stored.holder <> p_holder THEN
        RAISE EXCEPTION 'FENCED: token % of % cannot be installed for %: token % of % is installed',
            p_token, p_holder, p_service, stored.token, stored.holder
            USING ERRCODE = 'HF001', HINT = 'stop scheduling under this token; ask the agent for a fresh record';
    END IF;
END $$;

-- Passes only under the installed token, and keeps the next install waiting until this transaction has ended.
-- FOR SHARE is the point: a plain read, or FOR KEY SHARE, lets an old holder commit after the new one's install (measured).
-- Outside of a transaction block it protects nothing: its lock ends with the statement.
CREATE OR REPLACE FUNCTION handover.fence_check(p_service text, p_token bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM handover.scheduler_fence WHERE service = p_service AND token = p_token FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'FENCED: token % of service % is not the installed one, which is %', p_token, p_service,
            coalesce((SELECT token::text FROM handover.scheduler_fence WHERE service = p_service), 'none')
            USING ERRCODE = 'HF001', HINT = 'roll back and stop scheduling under this token; ask the agent for a fresh record';
    END IF;
END $$;

-- The installed token; 0: none yet. Report it to the agent as "stored_token".
CREATE OR REPLACE FUNCTION handover.fence_stored(p_service text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT token FROM handover.scheduler_fence WHERE service = p_service), 0)
$$;

-- The trigger form: each statement on a protected table checks the session's token.
CREATE OR REPLACE FUNCTION handover.fence_guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    word text := coalesce(current_setting('handover.token', true), '');
BEGIN
    IF word !~ '^[0-9]{1,19}$' THEN
        RAISE EXCEPTION 'FENCED: % is protected by the fence of service %, and this session has no token',
            TG_RELID::regclass, TG_ARGV[0]
            USING ERRCODE = 'HF001', HINT = 'SET handover.token = ''<token of the lease>'' once per session, or SET LOCAL behind a pooling proxy';
    END IF;
    PERFORM handover.fence_check(TG_ARGV[0], word::bigint);
    RETURN NULL;
END $$;

-- Puts a table under the fence of a service, for every role that writes to it.
CREATE OR REPLACE FUNCTION handover.fence_protect(p_table regclass, p_service text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS handover_fence ON %s', p_table);
    EXECUTE format('CREATE TRIGGER handover_fence BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION handover.fence_guard(%L)', p_table, p_service);
END $$;

-- Ends sessions that carry an older token in their application_name ("handover:SERVICE:TOKEN"), so that an install need
-- not wait for them. Optional; as the role of those sessions or a member of it. Returns how many were told to end.
CREATE OR REPLACE FUNCTION handover.fence_evict(p_service text, p_token bigint) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND starts_with(application_name, 'handover:' || p_service || ':')
          AND CASE WHEN substr(application_name, length('handover:' || p_service || ':') + 1) ~ '^[0-9]{1,19}$'
              THEN substr(application_name, length('handover:' || p_service || ':') + 1)::numeric < p_token
              ELSE false END
$$;

-- What the scheduler's role needs, and the limits that bound an install's wait to one unit of work (K6).
CREATE OR REPLACE FUNCTION handover.fence_role(p_role name, p_unit interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unit_ms text := ceil(extract(epoch FROM p_unit) * 1000)::bigint::text;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA handover TO %I', p_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION handover.fence_install(text, bigint, text),
        handover.fence_check(text, bigint), handover.fence_stored(text), handover.fence_evict(text, bigint) TO %I', p_role);
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', p_role, unit_ms);
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', p_role, unit_ms);
    IF current_setting('server_version_num')::int >= 170000 THEN
        EXECUTE format('ALTER ROLE %I SET transaction_timeout = %L', p_role, unit_ms);
    END IF;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA handover FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA handover FROM PUBLIC;
