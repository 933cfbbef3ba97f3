//! `gbsync actor`: which roles people have, for groups that a device sends in their names. Works on the server's folder, also
//! while a server runs on it.

use super::store::{StoreArguments, argument};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use anyhow::Result;
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_server::{ActorInfo, Actors};
use serde_json::json;

const EXAMPLE: &str = "\
Examples:
  gbsync actor set --data ./server --space shop manager-1 --role manager
  gbsync actor list --data ./server
  gbsync actor remove --data ./server --space shop manager-1";

const SET_EXAMPLE: &str = "\
Example:
  gbsync actor set --data ./server --space shop manager-1 --role manager --role cashier

The roles replace those said before; none means that the actor has none. They decide about groups that a token with --act-as \
sends. What is sent with a token of the actor's own is decided by the roles of that token.";

const LIST_EXAMPLE: &str = "\
Example:
  gbsync actor list --data ./server";

const REMOVE_EXAMPLE: &str = "\
Example:
  gbsync actor remove --data ./server --space shop manager-1

Groups that devices would send in this name wait from then on; nothing is lost. Tokens of the actor's own are revoked with \
gbsync token revoke.";

/// Say which roles people have, for devices that send in their names
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Say which roles somebody has
    #[command(after_help = SET_EXAMPLE)]
    Set(Set),
    /// List everybody whose roles are known
    #[command(after_help = LIST_EXAMPLE)]
    List(List),
    /// Forget somebody's roles
    #[command(after_help = REMOVE_EXAMPLE)]
    Remove(Remove),
}

#[derive(clap::Args)]
struct Set {
    #[command(flatten)]
    store: StoreArguments,
    /// The space
    #[arg(long, value_parser = config::space)]
    space: SpaceId,
    /// The person or service
    #[arg(value_parser = config::actor)]
    actor: Actor,
    /// A role of the actor; may be given several times
    #[arg(long = "role", value_name = "NAME", value_parser = config::role)]
    roles: Vec<Role>,
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    store: StoreArguments,
}

#[derive(clap::Args)]
struct Remove {
    #[command(flatten)]
    store: StoreArguments,
    /// The space
    #[arg(long, value_parser = config::space)]
    space: SpaceId,
    /// The person or service
    #[arg(value_parser = config::actor)]
    actor: Actor,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    match &arguments.verb {
        Verb::Set(arguments) => set(arguments, output),
        Verb::List(arguments) => list(arguments, output),
        Verb::Remove(arguments) => remove(arguments, output),
    }
    .map(|()| Exit::Done)
}

fn open(store: &StoreArguments) -> Result<Actors> {
    Ok(Actors::open(store.existing()?).map_err(|error| config::server_failure(&error))?)
}

fn set(arguments: &Set, output: &Output) -> Result<()> {
    let Set { store, space, actor, roles } = arguments;
    let roles = roles.iter().cloned().collect();
    open(store)?.set(space, actor, &roles).map_err(|error| config::server_failure(&error))?;
    let roles: Vec<&str> = roles.iter().map(Role::as_str).collect();
    if output.is_json() {
        output.json(&json!({ "actor": actor.as_str(), "space": space.as_str(), "roles": roles }));
    } else if roles.is_empty() {
        output.note(format_args!("{actor} has no role in space {space}"));
    } else {
        output.note(format_args!("{actor} is {} in space {space}", roles.join(", ")));
    }
    Ok(())
}

fn list(arguments: &List, output: &Output) -> Result<()> {
    let actors = open(&arguments.store)?.list().map_err(|error| config::server_failure(&error))?;
    let roles = |info: &ActorInfo| info.roles.iter().map(|role| role.as_str().to_owned()).collect::<Vec<_>>();
    if output.is_json() {
        let info_json = |info: &ActorInfo| json!({ "actor": info.actor.as_str(), "space": info.space.as_str(), "roles": roles(info), "since": info.since.as_str() });
        output.json(&actors.iter().map(info_json).collect::<Vec<_>>());
    } else if actors.is_empty() {
        output.note("nobody's roles are known yet; say them with gbsync actor set");
    } else {
        let row = |info: &ActorInfo| {
            let roles = if info.roles.is_empty() { "-".into() } else { roles(info).join(",") };
            vec![info.actor.to_string(), info.space.to_string(), roles, info.since.to_string()]
        };
        output.line(table(&["ACTOR", "SPACE", "ROLES", "SINCE"], &actors.iter().map(row).collect::<Vec<_>>()));
    }
    Ok(())
}

fn remove(arguments: &Remove, output: &Output) -> Result<()> {
    let Remove { store, space, actor } = arguments;
    if !open(store)?.remove(space, actor).map_err(|error| config::server_failure(&error))? {
        let failure = Failure::new("actor_not_found", format!("the roles of {actor} in space {space} are not known"));
        return Err(failure.help(format!("gbsync actor list {}", argument(&store.location()?))).into());
    }
    if output.is_json() {
        output.json(&json!({ "removed": actor.as_str(), "space": space.as_str() }));
    } else {
        output.note(format_args!("the roles of {actor} in space {space} are forgotten"));
    }
    Ok(())
}
