use super::*;

#[test]
fn the_document_names_every_kind_and_path() {
    let document = document();
    for kind in Kind::ALL {
        let schema = &document["components"]["schemas"][kind.as_str()];
        assert_eq!(schema["properties"]["kind"]["const"], kind.as_str());
        for collection in collections(kind) {
            let paths = document["paths"].as_object().expect("paths");
            assert!(paths[&collection]["get"].is_object(), "{collection}");
            let one = &paths[&format!("{collection}/{{name}}")];
            for method in ["get", "put", "delete"] {
                assert!(one[method].is_object(), "{method} {collection}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut values = vec![&document];
    let mut references = 0;
    while let Some(value) = values.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let place = reference.strip_prefix('#').expect("inside of the document");
                    assert!(document.pointer(place).is_some(), "{reference}");
                    references += 1;
                }
                values.extend(map.values());
            }
            Value::Array(list) => values.extend(list),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    assert!(references > 50, "{references}");
}
