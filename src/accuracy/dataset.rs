//! COCO JSON: which pictures there are and what is in them.

use std::collections::HashMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::Object;

/// The pictures of a data set, with their objects by class.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// In rising order of their ids.
    pub pictures: Vec<Entry>,
    /// For each class, the id of the category of that name; without one, its objects are not known.
    pub categories: Vec<Option<i64>>,
    /// Categories that are no class, with the number of their objects, which are left out.
    pub foreign: Vec<(String, usize)>,
}

/// A picture and its objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its id in the data set.
    pub id: i64,
    /// Path inside the folder of pictures.
    pub file_name: String,
    /// Width and height that the data set states.
    pub size: Option<(u32, u32)>,
    /// Objects of known classes.
    pub objects: Vec<Object>,
}

/// What is wrong with a data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not COCO JSON.
    #[error("it is no COCO JSON: {reason}")]
    Json {
        /// Where and why.
        reason: String,
    },
    /// It has no pictures.
    #[error("it lists no pictures")]
    Empty,
    /// Two categories have the same name.
    #[error("two categories are called \"{name}\"")]
    SameName {
        /// The name.
        name: String,
    },
    /// Two pictures or categories have the same id.
    #[error("two {what} have the id {id}")]
    Twice {
        /// Pictures or categories.
        what: &'static str,
        /// The id.
        id: i64,
    },
    /// An annotation is about nothing that is listed.
    #[error("annotation {annotation} names {what} {id}, which is not listed")]
    Dangling {
        /// Position in the list, from 0.
        annotation: usize,
        /// Picture or category.
        what: &'static str,
        /// The id.
        id: i64,
    },
    /// A box is none.
    #[error("annotation {annotation}: the box must be four finite numbers, width and height not negative")]
    Box {
        /// Position in the list, from 0.
        annotation: usize,
    },
    /// A picture's name leads out of the folder.
    #[error("\"{file_name}\" is no path inside the folder of pictures")]
    Path {
        /// The name.
        file_name: String,
    },
    /// No category is a class of the model.
    #[error("none of its categories is a class of the model: it has {}, the model {}", found.join(", "), classes.join(", "))]
    NoClass {
        /// The data set's categories.
        found: Vec<String>,
        /// The model's classes.
        classes: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Document {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    width: Option<u32>,
    height: Option<u32>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

impl Dataset {
    /// Reads COCO JSON. A category belongs to the class of its name; `bbox` is `[x, y, width, height]`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(text: &str, classes: &[&str]) -> Result<Self, Error> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| Error::Json { reason: error.to_string() })?;
        let mut indices = HashMap::new();
        let mut categories = vec![None; classes.len()];
        for category in &document.categories {
            let index = classes.iter().position(|class| *class == category.name);
            if indices.insert(category.id, index).is_some() {
                return Err(Error::Twice { what: "categories", id: category.id });
            }
            if index.is_some_and(|index| categories[index].replace(category.id).is_some()) {
                return Err(Error::SameName { name: category.name.clone() });
            }
        }
        if categories.iter().all(Option::is_none) {
            let found = document.categories.iter().map(|category| category.name.clone()).collect();
            return Err(Error::NoClass { found, classes: classes.iter().map(|class| (*class).to_owned()).collect() });
        }
        let mut pictures = document.images.into_iter().map(Entry::new).collect::<Result<Vec<_>, _>>()?;
        pictures.sort_by_key(|picture| picture.id);
        if pictures.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(twice) = pictures.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error::Twice { what: "pictures", id: twice[0].id });
        }
        let mut foreign: HashMap<i64, usize> = HashMap::new();
        for (number, annotation) in document.annotations.into_iter().enumerate() {
            let dangling = |what, id| Error::Dangling { annotation: number, what, id };
            let class = indices.get(&annotation.category_id);
            let class = class.ok_or_else(|| dangling("category", annotation.category_id))?;
            let at = pictures.binary_search_by_key(&annotation.image_id, |picture| picture.id);
            let picture = &mut pictures[at.map_err(|_| dangling("picture", annotation.image_id))?];
            match class {
                Some(class) => {
                    picture.objects.push(annotation.object(*class).ok_or(Error::Box { annotation: number })?);
                }
                None => *foreign.entry(annotation.category_id).or_default() += 1,
            }
        }
        let count = |category: &Category| Some((category.name.clone(), *foreign.get(&category.id)?));
        let foreign = document.categories.iter().filter_map(count).collect();
        Ok(Self { pictures, categories, foreign })
    }
}

impl Entry {
    fn new(image: Image) -> Result<Self, Error> {
        let mut parts = Path::new(&image.file_name).components().peekable();
        let inside = parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(Error::Path { file_name: image.file_name });
        }
        let size = image.width.zip(image.height);
        Ok(Self { id: image.id, file_name: image.file_name, size, objects: Vec::new() })
    }
}

impl Annotation {
    fn object(&self, class: usize) -> Option<Object> {
        let [x, y, width, height] = self.bbox;
        let sound = self.bbox.iter().all(|side| side.is_finite()) && width >= 0.0 && height >= 0.0;
        let area = self.area.unwrap_or(width * height);
        let object = Object { bbox: [x, y, x + width, y + height], class, area, crowd: self.iscrowd != 0 };
        (sound && area.is_finite()).then_some(object)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const CLASSES: [&str; 2] = ["head", "helmet"];

    fn parse(images: &str, annotations: &str) -> Result<Dataset, Error> {
        let categories = r#"[{"id": 7, "name": "helmet"}, {"id": 9, "name": "dog"}]"#;
        let text = format!(r#"{{"images": [{images}], "annotations": [{annotations}], "categories": {categories}}}"#);
        Dataset::parse(&text, &CLASSES)
    }

    #[test]
    fn categories_become_classes_by_name_and_the_rest_is_told() {
        let images = r#"{"id": 5, "file_name": "b/c.jpg"}, {"id": 2, "file_name": "a.jpg", "width": 4, "height": 3}"#;
        let annotations = r#"{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]},
                             {"image_id": 5, "category_id": 9, "bbox": [0, 0, 1, 1], "iscrowd": 1},
                             {"image_id": 2, "category_id": 7, "bbox": [0, 0, 2, 2], "area": 3.5, "iscrowd": 1}"#;
        let dataset = parse(images, annotations).unwrap();
        assert_eq!(dataset.pictures.iter().map(|picture| picture.id).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(dataset.pictures[0].size, Some((4, 3)));
        let object = Object { bbox: [1.0, 2.0, 4.0, 6.0], class: 1, area: 12.0, crowd: false };
        assert_eq!(dataset.pictures[1].objects, [object]);
        assert!(dataset.pictures[0].objects[0].crowd && dataset.pictures[0].objects[0].area < 3.6);
        assert_eq!((dataset.categories, dataset.foreign), (vec![None, Some(7)], vec![("dog".to_owned(), 1)]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let image = r#"{"id": 1, "file_name": "a.jpg"}"#;
        let bad = |annotation: &str| parse(image, annotation).unwrap_err().to_string();
        assert!(bad(r#"{"image_id": 3, "category_id": 7, "bbox": [0, 0, 1, 1]}"#).contains("picture 3"));
        assert!(bad(r#"{"image_id": 1, "category_id": 8, "bbox": [0, 0, 1, 1]}"#).contains("category 8"));
        assert!(bad(r#"{"image_id": 1, "category_id": 7, "bbox": [0, 0, -1, 1]}"#).contains("annotation 0"));
        assert!(bad(r#"{"image_id": 1, "category_id": 7, "bbox": [0, 0]}"#).contains("no COCO JSON"));
        assert_eq!(parse("", "").unwrap_err(), Error::Empty);
        assert_eq!(parse(&format!("{image}, {image}"), "").unwrap_err(), Error::Twice { what: "pictures", id: 1 });
        for name in ["/etc/passwd", "../a.jpg", "a/../../b.jpg", ""] {
            let image = format!(r#"{{"id": 1, "file_name": "{name}"}}"#);
            assert_eq!(parse(&image, "").unwrap_err(), Error::Path { file_name: name.to_owned() });
        }
        let text = r#"{"images": [], "categories": [{"id": 1, "name": "cat"}]}"#;
        assert!(Dataset::parse(text, &CLASSES).unwrap_err().to_string().contains("it has cat, the model head, helmet"));
    }
}
