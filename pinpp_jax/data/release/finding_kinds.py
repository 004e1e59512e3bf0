"""Every kind of finding in a release: what it is about, and what it means."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
  """What a kind of finding is about.

  `topic` groups kinds in reports; `meaning` says what happens to such an entry
  and what can be done.
  """

  topic: str
  meaning: str


def _topic(topic: str, kinds: dict[str, str]) -> dict[str, Guard]:
  return {k: Guard(topic=topic, meaning=text) for k, text in kinds.items()}


GUARDS: dict[str, Guard] = {
  **_topic(
    'Files',
    {
      'file that cannot be read': (
        'Not UTF-8, not JSON or not readable: most often a download that was '
        'cut short. Fetch the file again.'
      ),
      'stray file in json/': (
        'json/ holds one file <wnid>.json per class and nothing else.'
      ),
      'class missing': 'A class of ImageNet-1K without a file. Fetch it.',
      'class that is not of ImageNet-1K': (
        'A complete release has exactly the classes of ImageNet-1K.'
      ),
      'list missing, empty or of the wrong kind': (
        '"images", "annotations" and "categories" are lists of objects with at '
        'least one entry each. Fetch the file again.'
      ),
      'broken entry in category_name.json': (
        'Every entry has "file name", "object name" and "part name", once per '
        'class.'
      ),
      'classes of category_name.json and json/ differ': (
        'One of the two is incomplete or of another revision.'
      ),
      'containment file of no class': (
        'A file in including/ belongs to no class of the release and is not '
        'read.'
      ),
    },
  ),
  **_topic(
    'Totals',
    {
      'class without 100 images': (
        'A complete release has 100 annotated images per class.'
      ),
      'class without usable images': 'Nothing of this class can be used.',
      'classes differ from the expected number': 'See the two numbers.',
      'images differ from the expected number': (
        'Images are missing or doubled: compare with the source of the files.'
      ),
      'parts differ from the expected number': (
        'The published numbers disagree themselves: 3,308 in the paper, 3,310 '
        'in the official class file. P is counted from the data.'
      ),
      'masks differ from the expected number': (
        'The published number has changed once, from 452,749 to 406,364.'
      ),
    },
  ),
  **_topic(
    'Entries',
    {
      'id or size that is no integer': (
        'Ids and sizes are integers, or text that holds one. The entry cannot '
        'be used.'
      ),
      'category_id stored as text': 'Read as the number it holds.',
      'two categories with one id': 'Annotations could mean either.',
      'second image with the same id or name': (
        'Annotations could mean either; the first one is kept.'
      ),
      'second annotation with the same id': 'The first one is kept.',
      'annotation of an unknown image': 'Its image_id is no image of the file.',
      'annotation of an unknown category': (
        'Its category_id is no category of the file.'
      ),
      'file_name of another form or class': (
        'A name is <wnid>/<wnid>_<number>.JPEG with the wnid of its own file; '
        'anything else might lead out of the ImageNet copy.'
      ),
      'image too large': (
        'An image has at most 65,535 pixels a side and 67 million in all, and '
        '537 million over all its annotations. Left out.'
      ),
      'image without annotations': 'Kept, without any part.',
      'annotated image listed as discarded': (
        'discarded_data.json names an image that has annotations all the same.'
      ),
    },
  ),
  **_topic(
    'Images',
    {
      'images not looked at': (
        'No ImageNet copy was found, so that nothing is known about the files. '
        'Name it with --imagenet_dir.'
      ),
      'image not in the copy': (
        'Is it in another folder? Never replaced by anything.'
      ),
      'image that cannot be decoded': 'The file is damaged. Fetch it again.',
      'image with its sides swapped': (
        'The annotations were drawn on the picture as its EXIF data turn it, '
        'or the file was turned since.'
      ),
      'image of another size': (
        'Not the file that was annotated; outlines live in its pixels.'
      ),
      'image that is no JPEG inside': (
        'Read by its content, whatever its name says.'
      ),
      'image that is not stored in RGB': (
        'Grey, CMYK or with a palette: converted when it is decoded.'
      ),
      'image of 16 bits': 'Scaled to 8 bits when it is decoded.',
      'image with an EXIF rotation': (
        'Not applied: outlines live in the stored pixels.'
      ),
    },
  ),
  **_topic(
    'Outlines',
    {
      'empty segmentation': 'The annotation has no outline and is left out.',
      'segmentation of an unknown form': (
        'A list of polygons, one flat polygon, or run lengths (RLE).'
      ),
      'polygon that is no list of numbers': 'Left out.',
      'polygon with too few numbers': 'Three points are needed. Left out.',
      'polygon with an odd count of numbers': (
        'x and y come in pairs; nobody knows which is missing. Left out.'
      ),
      'polygon with a non-finite number': 'Left out.',
      'polygon out of bounds': (
        'Numbers beyond 1e12 or an outline of more than 8 million pixels: '
        'more memory than there is. Left out.'
      ),
      'annotation without a usable outline': 'Nothing is left of it.',
      'annotation with several polygons': 'Their union is the region.',
      'flat polygon list': 'Read as one polygon.',
      'RLE segmentation': 'Decoded.',
      'RLE that cannot be read': 'Left out.',
      'RLE of another size than its image': 'Left out.',
      'RLE whose runs do not add up': 'Left out.',
      'polygon clipped at the image border': (
        'What lies outside the image has no pixels.'
      ),
      'annotation covers no pixel': (
        'Smaller than a pixel, flat, or outside the image.'
      ),
      'bbox away from its polygons': (
        'The box is not around its outline (5 pixels allowed). Boxes are never '
        'used for masks, but one of the two is wrong.'
      ),
      'bbox that is not four numbers': 'Boxes are never used for masks.',
    },
  ),
  **_topic(
    'Names',
    {
      'category without a name': 'A part is told by its name.',
      'two categories with one name': 'A part is told by its name.',
      'more parts than a mask can hold': (
        'Part masks have 8 bits: at most 255 parts in one class.'
      ),
      'parts of category_name.json and the class file differ': (
        'One of the two is of another revision.'
      ),
      'order of parts differs in category_name.json': (
        'The order of the class file decides the numbers.'
      ),
      'part name without the object': (
        'A name usually begins with its object. It is kept whole; such a name '
        'has no class-free form.'
      ),
      'whole-object part': (
        'A part named like its object: no part once names are class-free.'
      ),
    },
  ),
  **_topic(
    'Containment',
    {
      'line that is no child:parent': 'One colon, a part on either side.',
      'containment of an unknown part': (
        'A name is no part of its class, or could be several.'
      ),
      'part contained in itself': 'Directly.',
      'circle of containments': (
        'Parts inside each other in a circle: no order to paint them in.'
      ),
      'contained part without its container': (
        'The contained part is annotated in an image and no part that contains '
        'it is. Painted as it is.'
      ),
    },
  ),
  **_topic(
    'Painting',
    {
      'pixels shared by parts without a declared relation': (
        'Counted in pixels. The smaller annotation lies on top.'
      ),
      'part hidden by others': (
        'Annotated, but no pixel of the painted mask shows it. A missing line '
        'in including/ is the usual cause.'
      ),
      'part mask that its PNG changes': (
        'The mask that is read back is not the one that was painted.'
      ),
    },
  ),
  **_topic(
    'Splits',
    {
      'split files that do not fit': (
        'splits/*.txt divide the annotated images; splits/hash.txt is theirs.'
      ),
      'image in no split file': 'Left out of every split.',
    },
  ),
}
