"""Vision: object detectors and pose models, and the conversion of pictures to their input.

`detector` runs YOLOX and other ONNX exports; `ultralytics_detector` is the adapter of an optional
package. `movenet` and `blazepose` estimate the poses of persons.
May import: the files of `models/`, and `pipeline/`.
"""
