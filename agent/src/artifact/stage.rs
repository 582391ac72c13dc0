//! Staging a version: fetched, verified, and only then renamed into place, so that there is never half of one.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use handover_artifact::verify::{MANIFEST_BYTES, SIGNATURE_BYTES, believe};
use handover_artifact::{Entry, EntryPath, Expected, MANIFEST, Manifest, Refused, SIGNATURE, Verified, verify};
use handover_proto::ids::Version;
use tracing::warn;

use super::alone::alone;
use super::fetch::FetchError;
use super::neighbours;
use super::pattern::Wanted;
use super::progress::Progress;
use super::prune::{self, ASIDE};
use super::settings::{ArtifactSettings, Fetch};
use super::space::{self, NoSpace};
use crate::config::Config;

/// Before a file is asked for again that a fault on the way has held up: one of ten thousand requests of a fleet must not
/// end a rollout.
const RESTS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Between two looks at a file that comes: the agent reports once a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A version that could not be staged. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Nobody says where from.
    #[error(
        "cannot stage {version}: it is not in {builds}, and the config does not say where to fetch it from; add fetch = {{ \
         url = \"https://…/{{version}}/{{file}}\" }} to [artifact], or put the version there by other means", builds = builds.display()
    )]
    NoWay {
        /// Which.
        version: Version,
        /// Where it should be.
        builds: PathBuf,
    },
    /// Another staging runs.
    #[error(
        "cannot stage {version}: another staging works in {builds} (`handover-agent stage`, or the agent of another service that \
         shares this directory); try again when it is done", builds = builds.display()
    )]
    Busy {
        /// Which.
        version: Version,
        /// Where.
        builds: PathBuf,
    },
    /// It is there, and not right.
    #[error(
        "{0}; nothing was fetched, since what is in its place may be running: if it is not, move it away and stage again"
    )]
    InPlace(Refused),
    /// What was fetched is not right.
    #[error("{0}; it was not put in place")]
    Refused(Refused),
    /// A file did not come.
    #[error("cannot stage {version}")]
    Fetch {
        /// Which.
        version: Version,
        /// Which file, and why.
        source: FetchError,
    },
    /// It does not fit on the disk.
    #[error("cannot stage {version} in {builds}: {why}", builds = builds.display())]
    Space {
        /// Which.
        version: Version,
        /// Where.
        builds: PathBuf,
        /// Both numbers.
        why: NoSpace,
    },
    /// The file system refuses.
    #[error("cannot {operation} {path}: {why}", path = path.display())]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
}

/// A version that is in place.
#[derive(Debug)]
pub struct Staged {
    /// It was there already.
    pub already: bool,
    /// What it is.
    pub verified: Verified,
    /// Versions that were taken away.
    pub pruned: Vec<Version>,
    /// Why none were, if that could not be told.
    pub not_pruned: Option<String>,
}

impl Staged {
    /// What is in place, and what was taken away, in words.
    pub fn in_words(&self) -> String {
        let what = match (&self.verified.manifest, &self.verified.signed_by) {
            (None, _) => "it has no manifest, and nothing of it was verified".to_owned(),
            (Some(manifest), signer) => {
                let signed = signer.as_ref().map_or("not signed".to_owned(), |key| format!("signed with key {key}"));
                format!("{} files, {} bytes, {signed}", manifest.files.len(), manifest.size_bytes())
            }
        };
        let names: Vec<&str> = self.pruned.iter().map(Version::as_str).collect();
        let pruned = if names.is_empty() { String::new() } else { format!("; pruned: {}", names.join(", ")) };
        let not = self.not_pruned.as_ref().map(|why| format!("; older versions were not pruned ({why})"));
        format!("{what}{pruned}{}", not.unwrap_or_default())
    }
}

/// Brings a version here, unless it is here already; verifies it either way. Blocks this thread while it reads and writes
/// files: it is for a thread or process of its own, not for the agent's loop. Dropping the future ends it, and takes away
/// what has come so far.
///
/// # Errors
/// [`StageError`].
pub async fn stage(config: &Config, version: &Version) -> Result<Staged, StageError> {
    stage_watched(config, version, &Progress::default()).await
}

/// The same, watched from beside it.
///
/// # Errors
/// As [`stage`].
pub async fn stage_watched(config: &Config, version: &Version, progress: &Progress) -> Result<Staged, StageError> {
    progress.begins();
    let unset = ArtifactSettings::default();
    let settings = config.artifact.as_ref().unwrap_or(&unset);
    let builds = config.driver.builds();
    fs::create_dir_all(builds).map_err(disk("make the directory", builds))?;
    let _alone = alone(builds, version)?;
    let expected = Expected { service: Some(config.service.clone()), version: Some(version.clone()) };
    let place = builds.join(version.as_str());
    if place.symlink_metadata().is_ok() {
        progress.verifies();
        let verified = verify(&place, &expected, &settings.trust, None).map_err(StageError::InPlace)?;
        return Ok(Staged { already: true, verified, pruned: Vec::new(), not_pruned: None });
    }
    let Some(fetch) = &settings.fetch else {
        return Err(StageError::NoWay { version: version.clone(), builds: builds.to_owned() });
    };
    clear_leftovers(builds)?;
    let aside = aside(builds, version);
    let staging = Staging { config, settings, fetch, version, expected, aside, progress };
    let (verified, mut pruned) = staging.go(&place).await?;
    let not_pruned = prune(config, settings, version).map(|more| pruned.extend(more)).err();
    Ok(Staged { already: false, verified, pruned, not_pruned })
}

/// Where the files come together: nowhere that was used before, since a command of a killed staging may still write there.
fn aside(builds: &Path, version: &Version) -> PathBuf {
    static STAGINGS: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), STAGINGS.fetch_add(1, Ordering::Relaxed));
    let since = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis());
    builds.join(format!("{ASIDE}staging-{version}-{since:x}-{process}-{number}"))
}

/// What a staging or a pruning that was killed has left.
fn clear_leftovers(builds: &Path) -> Result<(), StageError> {
    for entry in fs::read_dir(builds).map_err(disk("list", builds))? {
        let entry = entry.map_err(disk("list", builds))?;
        let ours = entry.file_name().to_string_lossy().starts_with(ASIDE);
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            prune::remove_all(&entry.path()).map_err(disk("remove", &entry.path()))?;
        }
    }
    Ok(())
}

struct Staging<'a> {
    config: &'a Config,
    settings: &'a ArtifactSettings,
    fetch: &'a Fetch,
    version: &'a Version,
    expected: Expected,
    aside: PathBuf,
    progress: &'a Progress,
}

/// Whatever is not in its place by then.
impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if let Err(error) = prune::remove_all(&self.aside).or_else(absent) {
            warn!(path = %self.aside.display(), %error, "what was staged in part is left behind; the next stage removes it");
        }
    }
}

impl Staging<'_> {
    /// Puts it in place; what had to go for that.
    async fn go(&self, place: &Path) -> Result<(Verified, Vec<Version>), StageError> {
        self.directory(&self.aside)?;
        let manifest = self.manifest().await?;
        let pruned = self.room_for(&manifest)?;
        self.progress.will_be(manifest.size_bytes());
        for (path, entry) in &manifest.files {
            self.bring(path, entry).await?;
        }
        self.progress.verifies();
        let verified = verify(&self.aside, &self.expected, &self.settings.trust, None).map_err(StageError::Refused)?;
        self.protect(&self.aside)?;
        fs::rename(&self.aside, place).map_err(disk("rename into place", place))?;
        let builds = self.config.driver.builds();
        File::open(builds).and_then(|builds| builds.sync_all()).map_err(disk("sync the directory", builds))?;
        Ok((verified, pruned))
    }

    /// Makes sure that it fits. If need be older versions go first, which would go afterwards: a disk that holds as many as
    /// it can would take no other for good.
    fn room_for(&self, manifest: &Manifest) -> Result<Vec<Version>, StageError> {
        let builds = self.config.driver.builds();
        let fits = || {
            let free = space::free_bytes(&self.aside).map_err(disk("ask for free space in", &self.aside))?;
            Ok(space::fits(manifest, free, self.settings.keep_free_bytes))
        };
        if fits()?.is_ok() {
            return Ok(Vec::new());
        }
        let pruned = prune(self.config, self.settings, self.version).unwrap_or_else(|reason| {
            warn!(builds = %builds.display(), reason, "older versions were not pruned");
            Vec::new()
        });
        let refused = |why| StageError::Space { version: self.version.clone(), builds: builds.to_owned(), why };
        fits()?.map(|()| pruned).map_err(refused)
    }

    /// Manifest and signature first: nothing else is asked for before they are believed.
    async fn manifest(&self) -> Result<Manifest, StageError> {
        let bytes = self.small(MANIFEST, MANIFEST_BYTES).await?;
        let signature = match self.small(SIGNATURE, SIGNATURE_BYTES).await {
            Ok(bytes) => Some(bytes),
            // Whether one has to be there is for the trust to say; that a command failed does not tell us more.
            Err(StageError::Fetch { source, .. })
                if source.why.is_absence() || !self.settings.trust.require_signature =>
            {
                let path = self.aside.join(SIGNATURE);
                fs::remove_file(&path).or_else(absent).map_err(disk("remove", &path))?;
                None
            }
            Err(error) => return Err(error),
        };
        let believed = believe(&bytes, signature.as_deref(), &self.expected, &self.settings.trust);
        let (manifest, _) = believed.map_err(|why| StageError::Refused(Refused { dir: self.aside.clone(), why }))?;
        Ok(manifest)
    }

    async fn small(&self, name: &str, most_bytes: u64) -> Result<Vec<u8>, StageError> {
        let path = self.aside.join(name);
        let named = name.parse().map_err(|error| disk("name", &path)(io::Error::other(error)))?;
        self.fetched(&named, most_bytes).await?;
        fs::read(&path).map_err(disk("read", &path))
    }

    async fn fetched(&self, file: &EntryPath, most_bytes: u64) -> Result<(), StageError> {
        let wanted = Wanted {
            service: self.config.service.clone(),
            version: self.version.clone(),
            file: file.clone(),
            to: file.under(&self.aside),
            most_bytes,
        };
        let mut fetched = self.fetch.fetch(&wanted).await;
        for rest in RESTS {
            match fetched {
                Err(error) if error.why.may_pass() => {
                    warn!(%error, "trying again in {rest:?}");
                    self.progress.waits(format!("another try in {} s: {error}", rest.as_secs()));
                }
                done => return done.map_err(|source| self.not_fetched(source)),
            }
            tokio::time::sleep(rest).await;
            self.progress.goes_on();
            fetched = self.fetch.fetch(&wanted).await;
        }
        fetched.map_err(|source| self.not_fetched(source))
    }

    fn not_fetched(&self, source: FetchError) -> StageError {
        StageError::Fetch { version: self.version.clone(), source }
    }

    /// Looks again and again at how much of a file has come: a command that fetches tells nothing.
    async fn look_at(&self, file: &Path) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.progress.has(fs::metadata(file).map_or(0, |about| about.len()));
        }
    }

    async fn bring(&self, path: &EntryPath, entry: &Entry) -> Result<(), StageError> {
        let to = path.under(&self.aside);
        if let Some(parent) = to.parent() {
            self.directory(parent)?;
        }
        match entry {
            Entry::Link { target } => std::os::unix::fs::symlink(target, &to).map_err(disk("link", &to)),
            Entry::File { size_bytes, executable, .. } => {
                self.progress.comes(*size_bytes);
                tokio::select! {
                    fetched = self.fetched(path, *size_bytes) => fetched?,
                    never = self.look_at(&to) => match never {},
                }
                self.progress.came();
                let mode = if *executable { 0o555 } else { 0o444 };
                let kept = File::open(&to).and_then(|file| {
                    file.set_permissions(Permissions::from_mode(mode))?;
                    file.sync_all()
                });
                kept.map_err(disk("keep", &to))
            }
        }
    }

    /// Whatever our umask is, the service's user must be able to read it.
    fn directory(&self, path: &Path) -> Result<(), StageError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
            .map_err(disk("make the directory", path))
    }

    /// Write-protects all directories, and makes them durable: a service that writes beside its program would make the
    /// version another one.
    fn protect(&self, root: &Path) -> Result<(), StageError> {
        for name in [MANIFEST, SIGNATURE].map(|name| root.join(name)) {
            let kept = File::open(&name).and_then(|file| {
                file.set_permissions(Permissions::from_mode(0o444))?;
                file.sync_all()
            });
            kept.or_else(absent).map_err(disk("keep", &name))?;
        }
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).map_err(disk("list", &directory))? {
                let entry = entry.map_err(disk("list", &directory))?;
                if entry.file_type().map_err(disk("look at", &entry.path()))?.is_dir() {
                    open.push(entry.path());
                }
            }
            let kept = fs::set_permissions(&directory, Permissions::from_mode(0o555));
            kept.and_then(|()| File::open(&directory)?.sync_all()).map_err(disk("keep", &directory))?;
        }
        Ok(())
    }
}

/// Takes away what is not needed any more. In doubt nothing is.
fn prune(config: &Config, settings: &ArtifactSettings, staged: &Version) -> Result<Vec<Version>, String> {
    let builds = config.driver.builds();
    let reason = |error: io::Error| format!("{}: {error}", builds.display());
    let mut used = prune::in_use(builds).map_err(reason)?;
    used.extend(prune::known_to_agent(&config.state_dir).map_err(|error| crate::report::chain(&error))?);
    used.extend(neighbours::known(builds, &config.service, &config.agent)?);
    used.insert(staged.clone());
    let doomed = prune::doomed(&prune::staged(builds, &config.service).map_err(reason)?, &used, settings.keep);
    prune::remove_each(builds, &doomed)?;
    Ok(doomed)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

pub(super) fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |why| StageError::Disk { operation, path, why }
}
