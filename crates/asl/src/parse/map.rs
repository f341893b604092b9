//! Map, inline and distributed.

use super::Reader;
use super::fields::Fields;
use super::work::parameters;
use crate::limit;
use crate::machine::{
    self, Amount, Batcher, Distributed, Flavour, Format, Items, Map, Number, Transformation, Writer,
};
use serde_json::Value;
use std::sync::Arc;

/// Characters of a `Label`.
const LABEL: usize = 40;
/// Largest `MaxItems`: more is the same as all.
const ITEMS: i64 = i64::MAX;

const DELIMITERS: [(&str, u8); 5] = [
    ("COMMA", b','),
    ("PIPE", b'|'),
    ("SEMICOLON", b';'),
    ("SPACE", b' '),
    ("TAB", b'\t'),
];

impl Reader {
    pub(super) fn map(&mut self, fields: &Fields) -> Option<Map> {
        fields.exclusive(&["ItemProcessor", "Iterator"], true, &mut self.report);
        fields.known(&["ItemProcessor", "Iterator"]);
        let items = self.items(fields);
        let most = u64::from(u32::MAX);
        let concurrency = self.number(fields, "MaxConcurrency", "MaxConcurrencyPath", 0, most);
        let selector = if fields.is_jsonata() || fields.members().contains_key("ItemSelector") {
            "ItemSelector"
        } else {
            "Parameters"
        };
        if !fields.is_jsonata() {
            fields.exclusive(&["ItemSelector", "Parameters"], false, &mut self.report);
            fields.known(&["ItemSelector", "Parameters"]);
        }
        let work = self.work(fields, selector);
        let failures = self.tolerated(fields);
        let percentage = self.percentage(fields);
        let name = if fields.members().contains_key("ItemProcessor") {
            "ItemProcessor"
        } else {
            "Iterator"
        };
        let processor = fields.object(name, &mut self.report)?;
        processor.text("Comment", &mut self.report);
        let flavour = self.processor_config(&processor);
        let around = self.flavour;
        if let Some(own) = flavour {
            if around == Flavour::Express {
                let place = processor.at("ProcessorConfig");
                let message = "Express state machine does not support the mode DISTRIBUTED";
                self.report.schema(&place, message);
            }
            self.flavour = own;
        }
        let program = self.program(&processor);
        self.flavour = around;
        processor.finish(&mut self.report);
        let run = flavour.map(|flavour| {
            let definition = fields.members().get(name).cloned().unwrap_or_default();
            let definition = self.alone(definition);
            Box::new(self.distributed(fields, flavour, definition))
        });
        Some(Map {
            items,
            concurrency,
            processor: Arc::new(program),
            work,
            failures,
            percentage,
            run,
        })
    }

    /// The definition of a processor as that of a machine of its own.
    fn alone(&self, mut definition: Value) -> Value {
        if let Some(members) = definition.as_object_mut() {
            members.retain(|name, _| name != "ProcessorConfig" && name != "QueryLanguage");
            if self.jsonata {
                members.insert("QueryLanguage".into(), "JSONata".into());
            }
        }
        definition
    }

    fn items(&mut self, fields: &Fields) -> Items {
        if fields.is_jsonata() {
            return fields
                .template("Items", &mut self.report)
                .map_or(Items::Input, Items::Template);
        }
        fields
            .path("ItemsPath", &mut self.report)
            .map_or(Items::Input, Items::Path)
    }

    /// The type of the child executions, if there are any.
    fn processor_config(&mut self, processor: &Fields) -> Option<Flavour> {
        let config = processor.object("ProcessorConfig", &mut self.report)?;
        let mode = self.choose(&config, "Mode", &[("INLINE", false), ("DISTRIBUTED", true)]);
        let flavours = [("STANDARD", Flavour::Standard), ("EXPRESS", Flavour::Express)];
        let flavour = self.choose(&config, "ExecutionType", &flavours);
        config.finish(&mut self.report);
        mode.unwrap_or_default()
            .then(|| flavour.unwrap_or(Flavour::Standard))
    }

    fn distributed(&mut self, fields: &Fields, flavour: Flavour, definition: Value) -> Distributed {
        let label = fields.text("Label", &mut self.report);
        if label.is_some_and(|label| label.is_empty() || label.chars().count() > LABEL) {
            let message = format!("The label has 1 to {LABEL} characters");
            self.report.schema(&fields.at("Label"), message);
        }
        Distributed {
            definition: Arc::new(definition),
            flavour,
            label: label.map(str::to_owned),
            reader: self.item_reader(fields),
            batcher: self.batcher(fields),
            writer: self.writer(fields),
        }
    }

    fn tolerated(&mut self, fields: &Fields) -> Option<Number> {
        let (name, path) = ("ToleratedFailureCount", "ToleratedFailureCountPath");
        self.number(fields, name, path, 0, u64::MAX)
    }

    fn percentage(&mut self, fields: &Fields) -> Option<Amount<f64>> {
        let name = "ToleratedFailurePercentage";
        if fields.is_query(name) {
            return fields.query(name, &mut self.report).map(Amount::Query);
        }
        if let Some(value) = fields.get(name) {
            let number = value.as_f64().filter(|number| (0.0..=100.0).contains(number));
            if number.is_none() {
                let message = match value.as_f64() {
                    None => "Expected value of type Number",
                    Some(number) if number < 0.0 => "Minimum value is 0.0",
                    Some(_) => "Maximum value is 100.0",
                };
                self.report.schema(&fields.at(name), message);
            }
            let _ = self.twin::<f64>(fields, name, "ToleratedFailurePercentagePath");
            return number.map(Amount::Fixed);
        }
        self.twin(fields, name, "ToleratedFailurePercentagePath")
    }

    fn item_reader(&mut self, fields: &Fields) -> Option<machine::Reader> {
        let reader = fields.object("ItemReader", &mut self.report)?;
        reader.required(&["Resource"], &mut self.report);
        let resource = reader.text("Resource", &mut self.report).unwrap_or_default();
        let lists = resource.ends_with(":listObjectsV2");
        let parameters = reader.template(parameters(&reader), &mut self.report);
        let (format, most) = match reader.object("ReaderConfig", &mut self.report) {
            Some(config) => {
                let format = self.format(&config, lists);
                let most = self.most(&config);
                config.finish(&mut self.report);
                (format, most)
            }
            None if lists => (Format::List, None),
            None => (Format::default(), None),
        };
        reader.finish(&mut self.report);
        Some(machine::Reader {
            parameters,
            format,
            most,
        })
    }

    fn format(&mut self, config: &Fields, lists: bool) -> Format {
        #[derive(Clone, Copy)]
        enum Kind {
            Csv,
            Json,
            JsonLines,
            Manifest,
            Parquet,
        }
        let kinds = [
            ("CSV", Kind::Csv),
            ("JSON", Kind::Json),
            ("JSONL", Kind::JsonLines),
            ("MANIFEST", Kind::Manifest),
            ("PARQUET", Kind::Parquet),
        ];
        let kind = self.choose(config, "InputType", &kinds);
        let pointer = config.text("ItemsPointer", &mut self.report).unwrap_or_default();
        let csv = self.csv(config);
        if config.text("ManifestType", &mut self.report) == Some("ATHENA_DATA") {
            self.report
                .unavailable(&config.at("ManifestType"), "the manifest type ATHENA_DATA");
        }
        match kind {
            _ if lists => Format::List,
            Some(Kind::Csv) => csv,
            Some(Kind::JsonLines) => Format::JsonLines,
            Some(Kind::Manifest) => Format::Manifest,
            Some(Kind::Parquet) => {
                self.report
                    .unavailable(&config.at("InputType"), "the input type PARQUET");
                Format::default()
            }
            Some(Kind::Json) | None => Format::Json {
                pointer: pointer.to_owned(),
            },
        }
    }

    fn csv(&mut self, config: &Fields) -> Format {
        let given = self
            .choose(
                config,
                "CSVHeaderLocation",
                &[("FIRST_ROW", false), ("GIVEN", true)],
            )
            .unwrap_or_default();
        let names = config.get("CSVHeaders").and_then(Value::as_array);
        let headers: Option<Vec<String>> = names.map(|names| {
            names
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        });
        if given && headers.is_none() {
            config.required(&["CSVHeaders"], &mut self.report);
        }
        let delimiter = self.choose(config, "CSVDelimiter", &DELIMITERS).unwrap_or(b',');
        Format::Csv {
            headers: headers.filter(|_| given),
            delimiter,
        }
    }

    /// `MaxItems` and its path.
    fn most(&mut self, config: &Fields) -> Option<Amount<i64>> {
        if config.is_query("MaxItems") {
            return config.query("MaxItems", &mut self.report).map(Amount::Query);
        }
        let fixed = config.count("MaxItems", 0, ITEMS as u64, &mut self.report);
        let fixed = fixed.and_then(|most| i64::try_from(most).ok());
        let twin = self.twin(config, "MaxItems", "MaxItemsPath");
        fixed.map(Amount::Fixed).or(twin)
    }

    fn batcher(&mut self, fields: &Fields) -> Option<Batcher> {
        let batcher = fields.object("ItemBatcher", &mut self.report)?;
        let most = u64::from(u32::MAX);
        let parsed = Batcher {
            items: self.number(&batcher, "MaxItemsPerBatch", "MaxItemsPerBatchPath", 1, most),
            bytes: self.number(
                &batcher,
                "MaxInputBytesPerBatch",
                "MaxInputBytesPerBatchPath",
                1,
                limit::PAYLOAD as u64,
            ),
            input: batcher.template("BatchInput", &mut self.report),
        };
        batcher.finish(&mut self.report);
        Some(parsed)
    }

    fn writer(&mut self, fields: &Fields) -> Option<Writer> {
        let writer = fields.object("ResultWriter", &mut self.report)?;
        let resource = writer.text("Resource", &mut self.report).map(str::to_owned);
        let parameters = writer.template(parameters(&writer), &mut self.report);
        let (mut transformation, mut lines) = (Transformation::None, false);
        if let Some(config) = writer.object("WriterConfig", &mut self.report) {
            let transformations = [
                ("NONE", Transformation::None),
                ("COMPACT", Transformation::Compact),
                ("FLATTEN", Transformation::Flatten),
            ];
            transformation = self
                .choose(&config, "Transformation", &transformations)
                .unwrap_or_default();
            lines = self
                .choose(&config, "OutputType", &[("JSON", false), ("JSONL", true)])
                .unwrap_or_default();
            config.finish(&mut self.report);
        }
        writer.finish(&mut self.report);
        Some(Writer {
            resource,
            parameters,
            transformation,
            lines,
        })
    }

    /// A text that must be one of a few.
    fn choose<T: Copy>(&mut self, fields: &Fields, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let text = fields.word(name, &names, &mut self.report)?;
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
    }
}
