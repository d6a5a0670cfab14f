//! `export`: writes the stack as files for other tools, including the edits made in Grafana.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum, ValueHint};

use super::context::Context;
use super::inputs::{SettingsScope, read_inputs};
use super::session::{self, Access};
use crate::error::{Error, Exit, Result};
use crate::export::directory::{self, Subject};
use crate::export::{self, ExportFormat, ExportServers, FORMATS, KeptSecret, Material, OwnSecret};
use crate::grafana::provisioning::GrafanaExport;
use crate::model::event::Event;
use crate::model::export::Exported;
use crate::model::hints::way_to_read;
use crate::model::invocation::typed_option;
use crate::model::observed::{Observed, OrganisationState, OurContainer, ServerResponse, VolumeState};
use crate::model::plan::{self, BlockReason, Finding, Resource, UpOptions};
use crate::model::results::Document;
use crate::model::role::Role;
use crate::model::schema::SchemaVersion;
use crate::model::stack::{Secret, Stack};
use crate::model::text::printable_line;
use crate::model::version::Version;
use crate::output::Output;
use crate::reconcile::{Depth, Session, generate_password};

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Format of the files
    pub(crate) format: &'static ExportFormat,
    /// Directory to write to; if not empty, it must hold only an earlier export in this format
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
}

impl ValueEnum for &'static ExportFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &FORMATS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
    }
}

/// The purpose of `export` in help.
pub(crate) fn about() -> String {
    let [others @ .., last] = FORMATS.map(|format| format.target);
    format!("Write files for {} or {last}", others.join(", "))
}

pub(crate) async fn run(context: &Context<'_>, arguments: &ExportArguments) -> Result<Exit> {
    let format = arguments.format;
    let mut inputs = read_inputs(context, SettingsScope::Whole)?;
    // A supplied password is for the new Grafana; it does not open the existing one.
    let password = if format.servers == ExportServers::New { inputs.secrets.grafana_password.take() } else { None };
    let session = if format.servers == ExportServers::Instance {
        session::open_with(&inputs, context, Access::ReadOnly).await?
    } else {
        // Files for other servers need no engine.
        let without_engine = async |error| {
            let session = session::without_engine(&inputs, context)?;
            let why = format!("{error}; remembered settings and edits in Grafana are not in the export");
            session.listener().on(Event::Warning(&why));
            Ok(session)
        };
        session::open_or(&inputs, context, Access::ReadOnly, without_engine).await?
    };
    let exported = export(&session, format, &arguments.directory, password).await?;
    context.print(Output::Result(Document::Exported(&exported)))?;
    Ok(Exit::Done)
}

/// Writes an export of the stack into a directory. `password` is the password for the new Grafana.
///
/// # Errors
/// [`Error::Usage`] if the stack cannot be exported in this format, [`Error::Absent`] if it needs a running server,
/// [`Error::File`] if the directory contains other files, otherwise the failed request.
async fn export(
    session: &Session,
    format: &'static ExportFormat,
    directory: &Path,
    password: Option<Secret>,
) -> Result<Exported> {
    let stack = session.stack();
    crate::reconcile::expect_known_settings(stack)?;
    warn_about_image(session, format.servers);
    let influxdb_password = session.influxdb_password();
    let (password, own_secret) = passwords(format, directory, password)?;
    format.check(stack, influxdb_password.is_some() || own_secret.is_some())?;
    let view = view(session, format.servers).await?;
    let material = Material {
        stack,
        present: &view.present,
        version: view.version,
        host_address: view.host_address.as_deref(),
        password: password.as_ref(),
        own_secret: own_secret.as_ref(),
        has_stored_password: view.has_stored_password,
        influxdb_password,
        format,
        directory,
    };
    let files = format.files(&material)?;
    let keeps_source = material.keeps_source()?;
    if !keeps_source {
        expect_login(session, format, directory, view.influxdb_refusal.as_deref())?;
    }
    let subject = Subject { format: format.name, instance: stack.instance.clone(), is_complete: view.is_complete };
    let files = directory::write(directory, &subject, &files)?;
    note_settings(session, &view.lost_settings, keeps_source);
    if let Some(note) = own_secret.and_then(|own| own.note(stack)) {
        session.listener().on(Event::Note(&note));
    }
    note_limitations(session);
    Ok(Exported {
        schema: SchemaVersion,
        instance: stack.instance.clone(),
        format: format.name,
        directory: directory.display().to_string(),
        files,
    })
}

/// Checks that the data source can sign in to InfluxDB. Its user is not remembered, so it may be missing when an export
/// is repeated.
fn expect_login(session: &Session, format: &ExportFormat, directory: &Path, refusal: Option<&str>) -> Result<()> {
    let stack = session.stack();
    if stack.container(Role::Influxdb).is_some() {
        return Ok(());
    }
    let has_user = !stack.data_source.user.is_empty();
    let earlier = if has_user { None } else { export::earlier_user(stack, directory)? };
    if let Some(earlier) = earlier {
        let (password, elsewhere) = if format.servers == ExportServers::New {
            (" and --influxdb-password-file", " with the password of the existing Grafana (--grafana-password-file)")
        } else {
            ("", "")
        };
        return Err(Error::usage(
            format!(
                "the earlier export to {} signs in to InfluxDB as {earlier:?}, and no user was supplied",
                directory.display()
            ),
            format!(
                "add{}{password}; without a login, export to a directory that does not exist{elsewhere}",
                typed_option("--influxdb-user", &earlier)
            ),
        ));
    }
    // A chosen address may lead to a proxy that signs in, and a user's password may be known only where the files are used.
    let has_sent_all = !has_user || session.influxdb_password().is_some();
    let refusal = refusal.filter(|_| has_sent_all && !stack.data_source.is_url_chosen);
    refusal.map_or(Ok(()), |message| Err(influxdb_refused(stack, message)))
}

fn influxdb_refused(stack: &Stack, message: &str) -> Error {
    let blocker = plan::refused(stack, Role::Influxdb, &stack.url(Role::Influxdb).to_string(), message);
    Error::Blocked { resource: Resource::Server(Role::Influxdb), blocker }
}

/// Reports the data source's settings that the files do not contain. With `keeps_source`, they have no data source.
fn note_settings(session: &Session, settings: &[String], keeps_source: bool) {
    if settings.is_empty() {
        return;
    }
    let settings = settings.join(", ");
    if keeps_source {
        session.listener().on(Event::Note(&format!(
            "the data source is not in the export and stays as it is: files cannot contain its settings {settings}"
        )));
    } else {
        session.listener().on(Event::Warning(&format!(
            "the exported data source lacks the settings {settings}, which only this Grafana has"
        )));
    }
}

/// Reports the changes that were made to the user's dashboards, and their parts that cannot work.
fn note_limitations(session: &Session) {
    for own in &session.stack().user_dashboards {
        for note in &own.notes {
            let note = format!("dashboard {:?}: {note}", own.title);
            session.listener().on(Event::Note(&printable_line(&note)));
        }
    }
}

/// The password for the new Grafana, or the user's own Secret that contains it. The password is the supplied one,
/// otherwise the one in an earlier export, otherwise a new one.
fn passwords(
    format: &ExportFormat,
    directory: &Path,
    given: Option<Secret>,
) -> Result<(Option<Secret>, Option<OwnSecret>)> {
    if format.servers != ExportServers::New {
        return Ok((None, None));
    }
    let Some(given) = given else {
        return Ok(match format.kept_secret(directory)? {
            KeptSecret::Nothing => (Some(generate_password()?), None),
            KeptSecret::Password(kept) => (Some(kept), None),
            KeptSecret::Own(secret) => (None, Some(secret)),
        });
    };
    if let Err(why) = export::check_password(given.reveal()) {
        return Err(Error::usage(
            format!("the supplied password for Grafana {why}"),
            "supply another one, or omit it to have one generated",
        ));
    }
    if let Ok(KeptSecret::Own(own)) = format.kept_secret(directory) {
        own.expect_replaceable()?;
    }
    Ok((Some(given), None))
}

/// The observed state of Grafana.
struct ExportView {
    present: GrafanaExport,
    /// The data source's settings that the files do not contain.
    lost_settings: Vec<String>,
    /// The message with which InfluxDB rejects the login.
    influxdb_refusal: Option<String>,
    version: Option<Version>,
    /// The address of the engine's host, if a container of a Compose export needs it.
    host_address: Option<String>,
    /// Its volume contains its password.
    has_stored_password: bool,
    /// The observation covers everything that an export can contain.
    is_complete: bool,
}

async fn view(session: &Session, servers: ExportServers) -> Result<ExportView> {
    let stack = session.stack();
    let container = stack.container(Role::Grafana);
    if container.is_none() && !stack.login.uses_token && !stack.login.is_untried {
        return Ok(view_without_account(session).await);
    }
    let mut connections = session.connect();
    let seen = session.observe(&mut connections, Depth::Servers).await?;
    crate::reconcile::expect_restored(stack, &seen)?;
    expect_usable(stack, &seen, servers)?;
    if servers == ExportServers::Existing && export::is_known_to_containers_only(stack) {
        session.listener().on(Event::Warning(&format!(
            "the data source's address {} works only inside the instance's own network: set the address that the other \
             Grafana uses with --data-source-url",
            stack.data_source.url
        )));
    }
    let runs = seen.grafana.running_version();
    let named = container.and_then(|spec| spec.config.image.version());
    let answers = seen.has_organisation();
    let present = if answers {
        session.grafana(&mut connections.grafana).await?.export_state(stack).await?
    } else {
        without_answer(session, &seen, servers)?
    };
    if servers != ExportServers::Instance {
        warn_about_omissions(session, &present);
    }
    let is_target = servers == ExportServers::Instance || (servers == ExportServers::Existing && container.is_none());
    let lost = if is_target { present.settings_with_secrets() } else { present.connection_settings() };
    Ok(ExportView {
        lost_settings: lost.into_iter().map(String::from).collect(),
        influxdb_refusal: match &seen.influxdb.response {
            ServerResponse::Refusing(message) => Some(message.clone()),
            _ => None,
        },
        present: match servers {
            ExportServers::New => present.on_new_server(),
            ExportServers::Existing if container.is_some() => present.on_another_server(),
            ExportServers::Existing | ExportServers::Instance => present,
        },
        version: if servers == ExportServers::New { named.or(runs) } else { runs.or(named) },
        host_address: if servers == ExportServers::Instance { host_address(session).await? } else { None },
        has_stored_password: seen.grafana.container.ours().is_some_and(OurContainer::has_password_file),
        is_complete: answers && (seen.engine.is_some() || container.is_none()),
    })
}

/// Without a supplied account, a request would count as a failed login in an external Grafana.
async fn view_without_account(session: &Session) -> ExportView {
    let version = session.grafana_version(&session.connect().grafana).await;
    session.listener().on(Event::Note(
        "Grafana is not read without --grafana-token-file or --grafana-password-file: the export contains the bundled \
         content without edits, and the data source without settings made in Grafana",
    ));
    let present = GrafanaExport::unknown(session.stack());
    ExportView {
        present,
        lost_settings: Vec::new(),
        influxdb_refusal: None,
        version,
        host_address: None,
        has_stored_password: false,
        is_complete: false,
    }
}

/// The assumed state of a Grafana that does not answer, or whose organisation cannot be used.
fn without_answer(session: &Session, seen: &Observed, servers: ExportServers) -> Result<GrafanaExport> {
    let stack = session.stack();
    let unreadable = seen.grafana_state().and_then(|grafana| match &grafana.organisation {
        OrganisationState::Unreadable(unreadable) => Some(unreadable),
        _ => None,
    });
    let cause = match &seen.grafana.response {
        ServerResponse::Refusing(message) => format!("Grafana rejected the login ({message})"),
        ServerResponse::Failing(why) => format!("clipper-metrics {why}"),
        ServerResponse::Silent(why) | ServerResponse::Starting(why) => format!("Grafana does not answer ({why})"),
        ServerResponse::Answering(_) => {
            match plan::up(stack, seen, UpOptions::default()).finding(Resource::Organisation) {
                Some(Finding::Blocked(blocker)) => format!("{} ({})", blocker.why, blocker.hint),
                Some(Finding::Unreadable(why)) => format!("clipper-metrics {why}"),
                _ => "Grafana's organisation does not exist".to_string(),
            }
        }
        _ => "Grafana does not answer".to_string(),
    };
    if let (ExportServers::Existing, Some(organisation)) = (servers, &stack.organisation) {
        return Err(Error::Absent {
            what: format!("the number of Grafana's organisation {organisation:?} is unknown: {cause}"),
            hint: unreadable.map_or_else(
                || "check that it runs, or omit --grafana-org".into(),
                |unreadable| way_to_read(stack, Role::Grafana, unreadable),
            ),
        });
    }
    let is_container = stack.container(Role::Grafana).is_some();
    if !is_container || matches!(seen.grafana.volume, VolumeState::Ours { .. }) {
        session.listener().on(Event::Warning(&format!(
            "{cause}: dashboards and data source are exported as clipper-metrics would create them, without edits"
        )));
    }
    Ok(if is_container { GrafanaExport::new_server(stack) } else { GrafanaExport::unknown(stack) })
}

/// The address at which containers reach the engine's host, if one of them needs it.
async fn host_address(session: &Session) -> Result<Option<String>> {
    let stack = session.stack();
    let mut containers = Role::ALL.into_iter().filter_map(|role| stack.container(role));
    if containers.any(|spec| spec.config.host_gateway) {
        session.docker()?.host_address(&stack.instance).await
    } else {
        Ok(None)
    }
}

/// Warns if the name of Grafana's image belongs to a newer image, which failed here.
fn warn_about_image(session: &Session, servers: ExportServers) {
    let Some(spec) = session.stack().container(Role::Grafana) else { return };
    let Some(id) = &spec.pinned_image else { return };
    let image = &spec.config.image;
    let consequence = match servers {
        ExportServers::Instance => format!("the files name the image by its id {id}, which only this engine has"),
        ExportServers::New => "choose an image for the files with --grafana-image".into(),
        ExportServers::Existing => return,
    };
    session.listener().on(Event::Warning(&format!("a newer image called {image} failed here: {consequence}")));
}

/// Warns about objects in Grafana that files cannot contain as they are.
fn warn_about_omissions(session: &Session, present: &GrafanaExport) {
    let listener = session.listener();
    if present.has_edited_rules() {
        listener
            .on(Event::Warning("an edited alert rule is exported without its contact point, which belongs to Grafana"));
    }
    for title in present.dashboards_in_schema_v2(session.stack()) {
        listener.on(Event::Warning(&format!(
            "the dashboard {title:?} was saved in Grafana's schema v2, which the files cannot contain: its edits are \
             not in the export"
        )));
    }
}

/// Checks that no foreign object conflicts with the files, and that the format finds the objects that it builds on.
fn expect_usable(stack: &Stack, seen: &Observed, servers: ExportServers) -> Result<()> {
    if let (ServerResponse::Refusing(message), false) = (&seen.grafana.response, servers == ExportServers::New) {
        let blocker = plan::refused(stack, Role::Grafana, &stack.url(Role::Grafana).to_string(), message);
        return Err(Error::Blocked { resource: Resource::Server(Role::Grafana), blocker });
    }
    let plan = plan::up(stack, seen, UpOptions::default());
    if let (ExportServers::Existing, Some(organisation), Some(Finding::Missing)) =
        (servers, &stack.organisation, plan.finding(Resource::Organisation))
    {
        return Err(Error::Absent {
            what: format!(
                "Grafana at {} has no organisation {organisation:?}, and a file cannot create one",
                stack.url(Role::Grafana)
            ),
            hint: format!("`{}` creates it; or choose another one with --grafana-org", stack.command("up")),
        });
    }
    let clash = plan.items.iter().find_map(|item| match &item.finding {
        Finding::Blocked(blocker) if is_in_grafana(item.resource) && blocker.kind != BlockReason::Server => {
            Some((item.resource, blocker.clone()))
        }
        _ => None,
    });
    if let Some((resource, blocker)) = clash.filter(|_| servers != ExportServers::New) {
        return Err(Error::Blocked { resource, blocker });
    }
    if let (ServerResponse::Refusing(message), ExportServers::Instance) = (&seen.influxdb.response, servers) {
        return Err(influxdb_refused(stack, message));
    }
    if servers == ExportServers::Instance && !plan.in_sync() {
        return Err(Error::Absent {
            what: format!(
                "instance {} is not in sync, and this export uses its volumes with their content",
                stack.instance
            ),
            hint: format!("run `{}`, then export it", stack.command("up")),
        });
    }
    Ok(())
}

const fn is_in_grafana(resource: Resource) -> bool {
    matches!(
        resource,
        Resource::Organisation | Resource::Folder | Resource::DataSource | Resource::Dashboard(_) | Resource::Alerts
    )
}
