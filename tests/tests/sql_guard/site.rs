//! One server with the guard applied, and sessions on it.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use handover_tests::postgres::Postgres;
use postgres::{Client, Error};

/// The guard as it is shipped.
pub(crate) const GUARD: &str = include_str!("../../../agent/sql/postgresql.sql");
/// What a refusal must carry.
pub(crate) const FENCED: &str = "HF001";
/// Nothing here takes longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// The server; ends with the test.
pub(crate) struct Site {
    server: Postgres,
    _dir: tempfile::TempDir,
}

impl Site {
    /// A server with the guard and a table of effects; token 10 of `a` is installed for `billing`.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Postgres::start(dir.path()).expect("a server");
        let site = Self { server, _dir: dir };
        let mut owner = site.session();
        owner.batch_execute(GUARD).expect("the guard");
        owner.batch_execute("CREATE TABLE charges (token bigint NOT NULL)").expect("a table");
        install(&mut owner, 10, "a").expect("the first token");
        site
    }

    /// A session of the owner.
    pub(crate) fn session(&self) -> Client {
        self.server.connect().expect("a session")
    }

    /// A session with settings of its own, such as `user=… application_name=…`.
    pub(crate) fn session_with(&self, settings: &str) -> Client {
        let port = self.server.url().split([':', '/']).filter_map(|part| part.parse::<u16>().ok()).next_back();
        let port = port.expect("a port");
        Client::connect(&format!("host=127.0.0.1 port={port} dbname=postgres {settings}"), postgres::NoTls)
            .expect("a session")
    }

    /// Waits until the session `pid` waits for a lock.
    pub(crate) fn until_blocked(&self, pid: i32) {
        let mut looker = self.session();
        let until = Instant::now() + LIMIT;
        while !is_blocked(&mut looker, pid) {
            assert!(Instant::now() < until, "session {pid} never waited for a lock");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs one statement in a session of its own, on a thread of its own: its backend's pid, and the end.
    pub(crate) fn aside(&self, settings: &str, statement: &str) -> (i32, JoinHandle<Result<(), Error>>) {
        let mut session = self.session_with(settings);
        let pid = pid(&mut session);
        let statement = statement.to_owned();
        (pid, std::thread::spawn(move || session.batch_execute(&statement)))
    }

    /// Tokens of the effects that are committed, in order of commit where they were written one after the other.
    pub(crate) fn charges(&self) -> Vec<i64> {
        let rows = self.session().query("SELECT token FROM charges ORDER BY ctid", &[]).expect("the effects");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The installed token.
    pub(crate) fn stored(&self) -> i64 {
        self.session().query_one("SELECT handover.fence_stored('billing')", &[]).expect("the token").get(0)
    }
}

/// Installs a token for `billing`.
pub(crate) fn install(session: &mut Client, token: i64, holder: &str) -> Result<(), Error> {
    session.execute("SELECT handover.fence_install('billing', $1, $2)", &[&token, &holder]).map(drop)
}

/// The session's backend.
pub(crate) fn pid(session: &mut Client) -> i32 {
    session.query_one("SELECT pg_backend_pid()", &[]).expect("a pid").get(0)
}

/// The SQLSTATE of a refusal.
pub(crate) fn state_of(error: &Error) -> String {
    error.code().map(|code| code.code().to_owned()).unwrap_or_else(|| error.to_string())
}

fn is_blocked(looker: &mut Client, pid: i32) -> bool {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
    looker.query_one(query, &[&pid]).expect("activity").get::<_, i64>(0) == 1
}
