//! `restore`: creates an instance from a file that `backup` wrote.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueHint};

use super::backup::expect_no_stream;
use super::context::Context;
use super::inputs;
use super::session;
use super::terminal::{self, confirm_loss, interrupted, unless_interrupted};
use crate::backup;
use crate::backup::archive::Verified;
use crate::error::{Error, Exit, Result};
use crate::model::image::ImageRef;
use crate::model::invocation::{shell_path, typed_option};
use crate::model::plan::Question;
use crate::model::role::Role;
use crate::model::stack::Remembered;
use crate::output::Output;
use crate::reconcile::Session;
use crate::settings::keys::{Setting, settings_of};

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Backup file
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Skip confirmation of images named only in the file, and of deleting data
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &RestoreArguments) -> Result<Exit> {
    expect_no_stream("restore", "input", &arguments.file, &inputs::invocation(context))?;
    let file = arguments.file.clone();
    let verifying = async {
        let verified = tokio::task::spawn_blocking(move || Verified::open(&file)).await;
        verified.unwrap_or_else(|why| {
            Err(Error::Io { doing: "read the archive".into(), source: std::io::Error::other(why.to_string()) })
        })
    };
    let archive = Arc::new(unless_interrupted(verifying).await?);
    let opening = session::open_restored(context, &arguments.file, &archive);
    let (session, record, images) = unless_interrupted(opening).await?;
    let trust = async || confirm_images(&session, arguments, &images, context).await;
    let take_over = async |what: &str| confirm_taking_over(&session, arguments, &images, what, context).await;
    let confirm = async |question: &Question| confirm_loss(context, arguments.yes, question).await;
    let outcome = backup::restore(&session, &archive, &record, take_over, trust, confirm, interrupted()).await?;
    context.print(Output::Up(&outcome.status.executed(&outcome.executed)))?;
    Ok(Exit::Done)
}

/// Asks before this run removes the objects of another restore, which may still be running.
async fn confirm_taking_over(
    session: &Session,
    arguments: &RestoreArguments,
    images: &[(Role, ImageRef)],
    what: &str,
    context: &Context<'_>,
) -> Result<()> {
    context.printer.clear();
    let file = shell_path(&arguments.file);
    // The command's --yes also answers the question about the images, so that it names them.
    let command = session.stack().invocation.again(&format!("restore {file}{} --yes", options_of(session, images)));
    let trusted = match images {
        [] => "",
        [_] => " and you trust the image that this command uses",
        _ => " and you trust the images that this command uses",
    };
    let question = format!("{what}. Remove its objects and restore {file}?");
    let hint = format!("wait until that run has ended; if it was killed{trusted}: `{command}`");
    terminal::ask(&question, arguments.yes, what, &hint).await
}

/// Asks before running an image that only the archive names, because an archive can come from anywhere.
async fn confirm_images(
    session: &Session,
    arguments: &RestoreArguments,
    images: &[(Role, ImageRef)],
    context: &Context<'_>,
) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    context.printer.clear();
    let file = shell_path(&arguments.file);
    let command = session.stack().invocation.again(&format!("restore {file}{}", options_of(session, images)));
    let named: Vec<String> = images.iter().map(|(role, image)| format!("{image} for {}", role.title())).collect();
    let what = format!("the archive names {}", named.join(" and "));
    let question = format!("{what}. Run {}?", if images.len() == 1 { "that image" } else { "these images" });
    let object = if images.len() == 1 { "it" } else { "them" };
    let hint = format!("if you trust {object}: `{command}`; --yes skips the question");
    terminal::ask(&question, arguments.yes, &what, &hint).await
}

/// The options that name images.
fn options_of(session: &Session, images: &[(Role, ImageRef)]) -> String {
    let remembered = session.stack().settings.as_ref().map(|settings| settings.values.clone());
    image_options(images, &remembered.unwrap_or_default())
}

/// A default image of a registry stays one if the registry is named.
fn image_options(images: &[(Role, ImageRef)], remembered: &BTreeMap<String, Remembered>) -> String {
    let registry = remembered.get(Setting::Registry.key().option).filter(|registry| !registry.value.is_empty());
    let mut options: Vec<String> = Vec::new();
    for (role, image) in images {
        let own = settings_of(*role).image;
        let option = match registry {
            Some(registry) if !remembered.contains_key(own.key().option) => {
                typed_option(&Setting::Registry.option(), &registry.value)
            }
            _ => typed_option(&own.option(), &image.to_string()),
        };
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_image_of_a_registry_is_named_by_the_registry() {
        let image = |name: &str| ImageRef::parse(name).unwrap();
        let images = [
            (Role::Influxdb, image("m:5000/influxdb:1.12.4")),
            (Role::Grafana, image("m:5000/grafana/grafana:12.4.10")),
        ];
        let options = |settings: &[(&str, &str)]| {
            let remembered = |(name, value): &(&str, &str)| {
                ((*name).to_string(), Remembered { value: (*value).into(), from_file: false })
            };
            image_options(&images, &settings.iter().map(remembered).collect())
        };
        let registry = ("registry", "m:5000");
        let influxdb = ("influxdb-image", "m:5000/influxdb:1.12.4");
        let grafana = ("grafana-image", "m:5000/grafana/grafana:12.4.10");
        assert_eq!(options(&[registry]), " --registry m:5000");
        assert_eq!(options(&[registry, influxdb]), " --influxdb-image m:5000/influxdb:1.12.4 --registry m:5000");
        let both = " --influxdb-image m:5000/influxdb:1.12.4 --grafana-image m:5000/grafana/grafana:12.4.10";
        assert_eq!(options(&[influxdb, grafana]), both);
        assert_eq!(options(&[registry, influxdb, grafana]), both);
    }
}
