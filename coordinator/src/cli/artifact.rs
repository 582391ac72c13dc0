//! `handover artifact`: the shell around [`handover_artifact`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use handover_artifact::secret::SecretKey;
use handover_artifact::tree::Listing;
use handover_artifact::{
    Expected, Key, MANIFEST, Manifest, Refused, SIGNATURE, Trust, Verified, verify as verify_artifact,
};
use handover_proto::wire::kind;
use serde_json::json;

use super::args::Global;
use super::args::artifact::{Artifact, Pack, Sign, Verify};
use super::out::Out;
use super::outcome::{CliError, Outcome};

/// Writes, signs or checks.
///
/// # Errors
/// [`CliError`]; [`CliError::Refused`] by policy if an artifact is not what its manifest says.
pub(super) fn run(global: &Global, artifact: Artifact) -> Result<Outcome, CliError> {
    match artifact {
        Artifact::Pack(pack) => self::pack(global, &pack),
        Artifact::Sign(sign) => self::sign(global, &sign),
        Artifact::Verify(verify) => self::verify(global, &verify),
        Artifact::Key { file } => key(global, &file),
    }
}

fn pack(global: &Global, pack: &Pack) -> Result<Outcome, CliError> {
    let service = global.service.clone().context("whose artifact is it? name the service with --service")?;
    let refused = |why| refused(&Refused { dir: pack.dir.clone(), why });
    let files = Listing::of(&pack.dir).and_then(|listing| listing.entries(&pack.dir)).map_err(refused)?;
    let built = pack.built.map_or_else(build_time, Ok)?;
    let mut manifest = Manifest::of(service, pack.version.clone(), built.to_string(), files);
    manifest.commit.clone_from(&pack.commit);
    manifest.compatible_with.clone_from(&pack.compatible_with);
    manifest.schema_version.clone_from(&pack.schema_version);
    if let Some(notes) = &pack.notes {
        manifest.notes = text_of(notes, "the release notes")?;
    }
    let bytes = manifest.to_bytes().map_err(|error| refused(error.into()))?;
    // A signature of what was packed before would only look like one.
    let stale = pack.dir.join(SIGNATURE);
    match fs::remove_file(&stale) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(anyhow::Error::new(error).context(format!("cannot remove {}", stale.display())).into());
        }
        _ => {}
    }
    put(&pack.dir.join(MANIFEST), &bytes)?;
    let (count, size) = (manifest.files.len(), manifest.size_bytes());
    let text = format!("{} {} packed: {count} files, {size} bytes", manifest.service, manifest.version);
    Out::new(global.json).answer(&json!({ "files": count, "size_bytes": size }), &[text])?;
    Ok(Outcome::Done)
}

fn sign(global: &Global, sign: &Sign) -> Result<Outcome, CliError> {
    let what = || format!("secret key {}", sign.secret_key.display());
    let password = sign.password_file.as_ref().map(|file| text_of(file, "the password")).transpose()?;
    let password = password.as_ref().map(|text| text.lines().next().unwrap_or_default());
    let text = text_of(&sign.secret_key, "the secret key")?;
    let secret = SecretKey::read(&text, password).with_context(what)?;
    // Nobody signs what is not there.
    let nobody = Trust { require_manifest: true, ..Trust::default() };
    let expected = Expected { service: global.service.clone(), version: None };
    let verified = verify_artifact(&sign.dir, &expected, &nobody, None).map_err(|error| refused(&error))?;
    let manifest = fs::read(sign.dir.join(MANIFEST)).context("the manifest has gone")?;
    let (service, version) = verified.manifest.map(|it| (it.service, it.version)).context("the manifest has gone")?;
    let signature = secret.sign(&manifest, &format!("handover artifact {service} {version}"));
    put(&sign.dir.join(SIGNATURE), signature.as_bytes())?;
    let public = public_line(&secret);
    let text = format!("{service} {version} signed; its public key is {public}");
    Out::new(global.json).answer(&json!({ "public_key": public }), &[text])?;
    Ok(Outcome::Done)
}

fn verify(global: &Global, verify: &Verify) -> Result<Outcome, CliError> {
    let keys = verify.key.iter().map(|key| Key::read(key)).collect::<Result<Vec<_>, _>>().context("--key")?;
    let trust = Trust { require_signature: !keys.is_empty(), require_manifest: true, keys };
    let expected = Expected { service: global.service.clone(), version: verify.version.clone() };
    let verified = verify_artifact(&verify.dir, &expected, &trust, None).map_err(|error| refused(&error))?;
    Out::new(global.json)
        .answer(&json!({ "manifest": verified.manifest, "signed_by": verified.signed_by }), &lines(&verified))?;
    Ok(Outcome::Done)
}

/// The manifest for people; the files are only counted.
fn lines(verified: &Verified) -> Vec<String> {
    let Some(manifest) = &verified.manifest else { return Vec::new() };
    let signed = verified.signed_by.as_ref().map(|key| format!("signed with key {key}"));
    let signed = signed.unwrap_or_else(|| "the signature was not looked at (no --key)".to_owned());
    let ranges: Vec<String> = manifest.compatible_with.iter().map(ToString::to_string).collect();
    let mut lines = vec![format!("{} {}: every file is as it should be; {signed}", manifest.service, manifest.version)];
    let said = [
        ("files", format!("{}, {} bytes", manifest.files.len(), manifest.size_bytes())),
        ("built", manifest.built.clone()),
        ("commit", manifest.commit.clone()),
        ("compatible with", ranges.join(" or ")),
        ("schema version", manifest.schema_version.clone()),
    ];
    lines.extend(said.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}: {value}")));
    lines.extend(manifest.notes.lines().map(str::to_owned));
    lines
}

fn key(global: &Global, file: &Path) -> Result<Outcome, CliError> {
    let (secret, text) = SecretKey::make().context("no key could be made")?;
    let public = PathBuf::from(format!("{}.pub", file.display()));
    ensure(!public.exists(), || format!("{} exists already; name another file", public.display()))?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = made.and_then(|mut made| made.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot make {}", file.display()))?;
    put(&public, secret.public_text().as_bytes())?;
    let line = public_line(&secret);
    let text = [
        format!("secret key: {} (not encrypted: keep it where only releases are signed)", file.display()),
        format!("public key: {}", public.display()),
        format!("for the agents' [artifact] keys: {line}"),
    ];
    Out::new(global.json).answer(&json!({ "public_key": line }), &text)?;
    Ok(Outcome::Done)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> anyhow::Result<()> {
    ensure!(holds, "{}", otherwise());
    Ok(())
}

/// What stands in a config.
fn public_line(secret: &SecretKey) -> String {
    secret.public_text().lines().nth(1).unwrap_or_default().to_owned()
}

/// The same tree built twice is to give the same bytes (reproducible-builds.org, SOURCE_DATE_EPOCH).
fn build_time() -> anyhow::Result<jiff::Timestamp> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().map(|text| {
        let seconds = text.parse().with_context(|| format!("SOURCE_DATE_EPOCH = {text:?} is no number of seconds"))?;
        jiff::Timestamp::from_second(seconds).context("SOURCE_DATE_EPOCH is out of range")
    });
    let now = || Ok(jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())?);
    given.unwrap_or_else(now)
}

fn text_of(file: &Path, what: &str) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {what}, {}", file.display()))
}

/// Written aside and renamed, so that nobody fetches half of it.
fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn refused(error: &Refused) -> CliError {
    CliError::Refused { kind: kind::POLICY.to_owned(), sentence: error.to_string() }
}
