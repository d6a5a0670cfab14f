//! Grafana's password in its data volume: read, written and reset through the engine.
//!
//! Must not know what the password is for or when it changes.

use std::io::Read as _;

use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt as _;

use super::Docker;
use crate::core::stack::{Role, Secret};
use crate::error::{Error, Refusal, Result, excerpt};

/// Where the password lies inside the container. It lives exactly as long as the database that it
/// opens, which is next to it. Where this file is, Grafana has this password or has none yet.
pub(super) const PATH: &str = "/var/lib/grafana/clipper-metrics/admin_password";
/// Where a new password lies while Grafana is being told of it: a run that ends half-way loses
/// nothing, and leaves no file that promises too much.
const PENDING: &str = "/var/lib/grafana/clipper-metrics/admin_password.new";
/// The folder that archives are unpacked in.
const VOLUME: &str = "/var/lib/grafana";
/// The user that Grafana's image runs as, and its group.
const OWNER: (u64, u64) = (472, 0);
/// The most that is read: a password is a line.
const LIMIT: usize = 64 << 10;

impl Docker {
    /// The password in the container's volume, if there is one. Works on containers that never ran.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn read_password(&self, container: &str) -> Result<Option<Secret>> {
        self.read_secret(container, PATH).await
    }

    /// The password that Grafana was about to be told of when a run ended half-way.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn read_pending_password(&self, container: &str) -> Result<Option<Secret>> {
        self.read_secret(container, PENDING).await
    }

    async fn read_secret(&self, container: &str, path: &str) -> Result<Option<Secret>> {
        let doing = format!("read Grafana's password from the volume of {container}");
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let read = async {
            let mut stream = self.client.download_from_container(container, Some(options));
            let mut archive = Vec::new();
            while let Some(chunk) = stream.next().await {
                archive.extend_from_slice(&chunk?);
                if archive.len() > LIMIT {
                    break;
                }
            }
            Ok(archive)
        };
        let Some(archive) = self.find(&doing, read).await? else { return Ok(None) };
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut text = String::new();
        let entry = archive.entries().ok().and_then(|mut entries| entries.next()).and_then(std::result::Result::ok);
        if let Some(entry) = entry {
            entry.take(LIMIT as u64).read_to_string(&mut text).map_err(|source| Error::Io { doing, source })?;
        }
        let text = text.trim_end_matches(['\n', '\r']);
        Ok((!text.is_empty()).then(|| Secret::new(text)))
    }

    /// Puts a password into the container's volume, readable by Grafana alone.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn write_password(&self, container: &str, password: &Secret) -> Result<()> {
        self.write_secret(container, PATH, password).await
    }

    /// Puts the password that Grafana is about to be told of beside the other one.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn write_pending_password(&self, container: &str, password: &Secret) -> Result<()> {
        self.write_secret(container, PENDING, password).await
    }

    async fn write_secret(&self, container: &str, path: &str, password: &Secret) -> Result<()> {
        let doing = format!("put Grafana's password into the volume of {container}");
        let archive = archive(path, password).map_err(|source| Error::Io { doing: doing.clone(), source })?;
        let options = UploadToContainerOptionsBuilder::default().path(VOLUME).copy_uidgid("false").build();
        let upload = self.client.upload_to_container(container, Some(options), bollard::body_full(archive.into()));
        self.call(&doing, upload).await
    }

    /// Sets the password with Grafana's own command inside the running container. It goes through
    /// standard input, so that no process list shows it.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn reset_password(&self, container: &str, password: &Secret) -> Result<()> {
        let common = ["--homepath", "/usr/share/grafana", "--config", "/etc/grafana/grafana.ini"];
        let action = ["admin", "reset-admin-password", "--password-from-stdin"];
        let new = [&["grafana", "cli"][..], &common, &action].concat();
        // Up to 8, the command was a program of its own.
        let old = [&["grafana-cli"][..], &common, &action].concat();
        let (code, words) = match self.exec(container, &new, password).await? {
            (126 | 127, _) => self.exec(container, &old, password).await?,
            result => result,
        };
        if code == 0 {
            return Ok(());
        }
        let words = words.replace(password.reveal(), "…");
        Err(Error::Docker {
            doing: format!("reset the password of {} in container {container}", Role::Grafana.title()),
            why: format!("its own command ended with {code}: {}", excerpt(&words, 300)),
            refusal: Refusal::Other,
        })
    }

    /// Runs a command with a secret on its standard input; its exit code and what it printed.
    async fn exec(&self, container: &str, command: &[&str], input: &Secret) -> Result<(i64, String)> {
        let doing = format!("run a command in container {container}");
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(|word| (*word).to_string()).collect()),
            ..ExecConfig::default()
        };
        let exec = self.call(&doing, self.client.create_exec(container, config)).await?;
        let started = self.call(&doing, self.client.start_exec(&exec.id, None)).await;
        let mut words = String::new();
        match started {
            Ok(StartExecResults::Attached { mut output, input: mut stdin }) => {
                let line = format!("{}\n", input.reveal());
                let sent = async {
                    stdin.write_all(line.as_bytes()).await?;
                    stdin.shutdown().await
                };
                // A command that is not there reads nothing; its exit code tells.
                let _ = sent.await;
                while let Some(Ok(part)) = output.next().await {
                    if words.len() < LIMIT {
                        words.push_str(&part.to_string());
                    }
                }
            }
            Ok(StartExecResults::Detached) => {}
            // Some engines refuse to start a program that the image does not have.
            Err(Error::Docker { why, .. }) if why.contains("executable file not found") => return Ok((127, why)),
            Err(error) => return Err(error),
        }
        let mut pause = std::time::Duration::from_millis(10);
        loop {
            let state = self.call(&doing, self.client.inspect_exec(&exec.id)).await?;
            if state.running != Some(true) {
                return Ok((state.exit_code.unwrap_or(-1), words));
            }
            crate::systems::pause(&mut pause).await;
        }
    }
}

/// An archive with the folder and the file in it.
fn archive(path: &str, password: &Secret) -> std::io::Result<Vec<u8>> {
    let entry = |path: &str, mode: u32, size: u64| -> std::io::Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        header.set_path(path)?;
        header.set_mode(mode);
        header.set_uid(OWNER.0);
        header.set_gid(OWNER.1);
        header.set_size(size);
        Ok(header)
    };
    let mut builder = tar::Builder::new(Vec::new());
    let mut folder = entry("clipper-metrics/", 0o700, 0)?;
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_cksum();
    builder.append(&folder, std::io::empty())?;
    let bytes = password.reveal().as_bytes();
    let name = path.trim_start_matches(VOLUME).trim_start_matches('/');
    let mut file = entry(name, 0o400, bytes.len() as u64)?;
    file.set_cksum();
    builder.append(&file, bytes)?;
    builder.into_inner()
}
