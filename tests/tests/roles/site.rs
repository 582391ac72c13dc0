//! A cluster that `handover store setup --apply` has prepared, and a certificate for everybody.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use handover_proto::keys::{EnvKeys, LeaseKeys, ServiceKeys};
use handover_store::client::Store;
use handover_tests::cluster::Cluster;
use handover_tests::fleet::Binaries;
use handover_tests::pki::{Pki, Subject};
use handover_tls::TlsFiles;
use tempfile::TempDir;

/// Both etcd versions for which there is a program; what is missing is said.
pub(crate) fn programs() -> Vec<PathBuf> {
    let named = ["HANDOVER_TEST_ETCD", "HANDOVER_TEST_ETCD35"].map(|name| (name, std::env::var_os(name)));
    let found = named.into_iter().filter_map(|(name, program)| {
        if program.is_none() {
            eprintln!("SKIPPED on one etcd version: {name} does not name a program (tests/run sets it)");
        }
        program.map(PathBuf::from)
    });
    found.collect()
}

pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) pki: Pki,
    pub(crate) root: TlsFiles,
    _dir: TempDir,
}

impl Site {
    /// Without roles.
    pub(crate) fn bare(program: &std::path::Path) -> Result<Self> {
        let dir = TempDir::new()?;
        let pki = Pki::new(dir.path())?;
        let cluster = Cluster::start(program, Some(&pki))?;
        let root = pki.issue("root", &Subject::named("root"))?;
        Ok(Self { cluster, pki, root, _dir: dir })
    }

    /// Set up for the service `billing` in `prod`.
    pub(crate) fn set_up(program: &std::path::Path) -> Result<Self> {
        let site = Self::bare(program)?;
        let done = site.setup(&site.root, &["billing", "--apply"])?;
        anyhow::ensure!(done.status.success(), "{}", said(&done));
        Ok(site)
    }

    /// Runs `handover store setup` with this certificate.
    pub(crate) fn setup(&self, files: &TlsFiles, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(Binaries::find()?.path("handover"));
        command.args(["--env", "prod", "--store", &self.cluster.endpoints().join(",")]);
        command
            .arg("--store-ca")
            .arg(&files.ca)
            .arg("--store-cert")
            .arg(&files.cert)
            .arg("--store-key")
            .arg(&files.key);
        command.args(["store", "setup"]).args(args).output().context("handover cannot be run")
    }

    /// The store for whoever has this common name.
    pub(crate) fn store(&self, common_name: &str) -> Result<Store> {
        self.cluster.store(&self.pki.issue(common_name, &Subject::named(common_name))?)
    }

    pub(crate) fn agent(&self) -> Result<Store> {
        self.store("handover.prod.billing.agent")
    }

    pub(crate) fn coordinator(&self) -> Result<Store> {
        self.store("handover.prod.coordinator")
    }

    pub(crate) fn operator(&self) -> Result<Store> {
        self.store("handover.prod.operator")
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) fn env() -> EnvKeys {
    EnvKeys::new(&"prod".parse().expect("env"))
}

pub(crate) fn service() -> ServiceKeys {
    env().service(&"billing".parse().expect("service"))
}

pub(crate) fn lease() -> LeaseKeys {
    service().lease()
}
