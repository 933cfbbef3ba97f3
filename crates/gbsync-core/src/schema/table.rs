//! What a schema says about tables, without any SQL: names of columns, and where their values come from.

use super::{EntityRules, Field, Schema};
use crate::id::Entity;

impl EntityRules {
    /// The columns of its table after `id`, in order: each declared field, by name.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }
}

impl Schema {
    /// The fields of a server's record that a column of this app's table may show, the first that is there first: its own
    /// name, the name it had before, and the name that the server's schema gave it since.
    ///
    /// ```
    /// use gbsync_core::{id::Entity, schema::Schema};
    /// let schema = |version, field| Schema::parse(&format!("version = {version}\n[entities.c]\nfields.{field}\n")).unwrap();
    /// let (app, server) = (schema(1, "tel = \"text\""), schema(2, "phone = { type = \"text\", was = \"tel\" }"));
    /// let customers = Entity::new("c").unwrap();
    /// assert_eq!(app.column_sources(&customers, "tel", Some(&server)), ["tel", "phone"]);
    /// assert_eq!(server.column_sources(&customers, "phone", Some(&app)), ["phone", "tel"]);
    /// ```
    pub fn column_sources<'s>(&'s self, entity: &Entity, field: &'s str, server: Option<&'s Schema>) -> Vec<&'s str> {
        let fields = |schema: &'s Schema| schema.entity(entity).map(|rules| &rules.fields);
        let mut sources = vec![field];
        let former = fields(self).and_then(|fields| fields.get(field)).and_then(|field| field.was.as_deref());
        let later = server.and_then(fields).into_iter().flatten();
        let later = later.filter(|(_, known)| known.was.as_deref() == Some(field)).map(|(name, _)| name.as_str());
        for source in former.into_iter().chain(later) {
            // A name that this app declares for itself is another column.
            let is_own = fields(self).is_some_and(|fields| fields.contains_key(source));
            if !is_own && !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources
    }
}
